"""Data: how xpnet reads, splits, scales and orders it."""

from xpnet.data.augmentation import Augmentation
from xpnet.data.dataset import (
    Dataset,
    Rows,
    Scaling,
    chunks,
    is_streamed,
    select_rows,
)
from xpnet.data.encoder import Encoder
from xpnet.data.loader import batch_order
from xpnet.data.preparation import class_weights, split, standardize
from xpnet.data.shards import Shards

__all__ = [
    "Augmentation",
    "Dataset",
    "Encoder",
    "Rows",
    "Scaling",
    "Shards",
    "batch_order",
    "chunks",
    "class_weights",
    "is_streamed",
    "select_rows",
    "split",
    "standardize",
]
