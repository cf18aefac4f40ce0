"""Data for training: batches of arrays (`DataLoader`), and tables from files (`tabular` is the door of those)."""

from typing import NoReturn

from ..elsewhere import missing_in
from .holding import train_test_split
from .loader import ArraySource, Batch, DataLoader, IterableSource, Source

__all__ = ["ArraySource", "Batch", "DataLoader", "IterableSource", "Source", "train_test_split"]


def __getattr__(name: str) -> NoReturn:
    raise missing_in("data", name, __all__)
