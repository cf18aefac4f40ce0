"""Data for training: batches (`DataLoader`), images, text, series, and tables from files (`tabular` is their door).

What a row or batch is follows from the data, the seed and the number of the epoch: nothing else is remembered.
Knows arrays and files; knows nothing of models, losses and training.
"""

from typing import NoReturn

from ..elsewhere import missing_in
from .augmentation import (
    Compose,
    GaussianNoise,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    RandomVerticalFlip,
)
from .datasets import Dataset, Subset
from .holding import train_test_split
from .images import ImageFolder, ImageFormat, as_images, load_image
from .loader import DataLoader
from .padding import Padded, SequenceDataset, pad_sequences
from .series import Scaling, SeriesWindows
from .sources import ArraySource, Batch, IterableSource, Source
from .text import TextStreams, TextWindows, Vocabulary

__all__ = [
    "ArraySource",
    "Batch",
    "Compose",
    "DataLoader",
    "Dataset",
    "GaussianNoise",
    "ImageFolder",
    "ImageFormat",
    "IterableSource",
    "Padded",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomShift",
    "RandomVerticalFlip",
    "Scaling",
    "SequenceDataset",
    "SeriesWindows",
    "Source",
    "Subset",
    "TextStreams",
    "TextWindows",
    "Vocabulary",
    "as_images",
    "load_image",
    "pad_sequences",
    "train_test_split",
]


def __getattr__(name: str) -> NoReturn:
    raise missing_in("data", name, __all__)
