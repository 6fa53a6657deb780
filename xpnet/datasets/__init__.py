"""Data sets by name, and data sets from your own files."""

from xpnet.data.catalog import NAMES, load
from xpnet.data.user_files import load_file

__all__ = ["NAMES", "load", "load_file"]
