"""Data: what is trained on, how it is split, scaled and read."""

from xpnet.data.dataset import (
    Dataset,
    Rows,
    Scaling,
    chunks,
    is_streamed,
    select_rows,
    split,
    standardize,
)
from xpnet.data.loader import batch_order

__all__ = [
    "Dataset",
    "Rows",
    "Scaling",
    "batch_order",
    "chunks",
    "is_streamed",
    "select_rows",
    "split",
    "standardize",
]
