"""Data sets by name, and data sets from your own files."""

from xpnet.data.catalog import NAMES, load
from xpnet.data.user_files import has_test_part, load_file

__all__ = ["NAMES", "has_test_part", "load", "load_file"]
