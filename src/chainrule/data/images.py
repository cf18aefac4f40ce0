"""Images as arrays (N, channels, height, width) of float32 from 0 to 1: out of arrays, files, and folders of files.

Files are read with Pillow, the optional extra `images`.
Knows pixels and files; knows nothing of batches and of training.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..graph import constant
from ..tensor import Tensor, wrap
from .arrays import as_array
from .datasets import Dataset, Rows
from .extras import load

Pixels = NDArray[np.float32]
Path = str | os.PathLike[str]

# Numbers of channels that an axis of channels can have: grey, grey with alpha, colours, colours with alpha.
_CHANNELS = (1, 2, 3, 4)

_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")

_MODES = {"RGB": 3, "L": 1}


def as_images(images: Any, *, channels: str | None = None, white: float | None = None) -> Pixels:
    """Images in an array as (N, channels, height, width), float32 from 0 to 1, the form that convolutions take.

    images: (N, height, width) of grey images, or with an axis of 1 to 4 channels: `channels="first"` or "last" says
        where it is if both could be.
    white: the number that is full white; by default the largest one of an integer dtype (255 for uint8), and 1 for
        floats. Raises DataError for other shapes, and for numbers outside 0 … white.

    >>> as_images(np.full((2, 8, 8, 3), 255, np.uint8)).shape
    (2, 3, 8, 8)
    >>> float(as_images([[[0, 16], [8, 4]]], white=16).max())
    1.0
    """
    array = as_array(images, "images")
    if channels not in (None, "first", "last"):
        raise ArgumentError(f"channels must be 'first' or 'last'; got {channels!r}")
    if white is None:
        if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
            raise ArgumentError(
                f"images of {array.dtype.name} do not say what white is; got numbers from {array.min()} to "
                f"{array.max()}. Write white=255 for 8-bit images, or the number that they go up to"
            )
        white = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 1.0
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > white:
        advice = (
            "Write white=255" if white == 1 and high <= 255 and low >= 0 else "Scale them, or name white="
        )
        raise DataError(f"images need numbers from 0 to {white:g}; got {low:g} to {high:g}. {advice}")
    ordered = _channels_first(array, channels)
    return np.ascontiguousarray(ordered, np.float32) / np.float32(white)


def _channels_first(array: NDArray[Any], channels: str | None) -> NDArray[Any]:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise DataError(
            f"images need shape (N, height, width), or that with channels; got {array.shape}. Reshape the rows: "
            "X.reshape(len(X), height, width)"
        )
    first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if channels is None:
        if first == last:
            what = "either could be the channels" if first else "no axis of 1 to 4 channels"
            raise DataError(
                f"images (N, channels, height, width) or (N, height, width, channels) are needed; got {array.shape}: "
                f"{what}. Write channels='first' or 'last'"
            )
        channels = "first" if first else "last"
    return array if channels == "first" else np.moveaxis(array, 3, 1)


def load_image(path: Path, *, mode: str = "RGB", resize: int | Sequence[int] | None = None) -> Pixels:
    """The image in a file as (channels, height, width), float32 from 0 to 1. Needs Pillow, the extra `images`.

    mode: "RGB", or "L" for grey. resize: (height, width); or one number: the shorter side gets it, and the middle of
    the longer one is kept, so that nothing is stretched. A photograph is turned as its camera noted.
    Raises DataError, which names the file, for one that is no image, or is damaged.

    >>> import tempfile, chainrule as cr
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (6, 4), "red").save(f"{folder}/a.png")
    ...     pixels = cr.data.load_image(f"{folder}/a.png")
    >>> pixels.shape, pixels[:, 0, 0].tolist()
    ((3, 4, 6), [1.0, 0.0, 0.0])
    """
    return _read(os.fspath(path), _checked_mode(mode), _checked_size(resize))


class ImageFormat:
    """How image files become rows of a network: their size, colours and classes; a run directory keeps it.

    classes: names of the classes, by number.
    """

    kind = "images"

    def __init__(
        self,
        classes: Sequence[str],
        mode: str,
        resize: int | tuple[int, int] | None,
        size: tuple[int, int] | None,
    ) -> None:
        self.classes = list(classes)
        self.mode, self.resize, self.size = mode, resize, size

    def prepare(self, raw: Any) -> Any:
        """Paths of image files as an array (N, channels, height, width); anything else as it is."""
        if isinstance(raw, str | os.PathLike):
            raw = [raw]
        if (
            not isinstance(raw, list | tuple)
            or not raw
            or not all(isinstance(one, str | os.PathLike) for one in raw)
        ):
            return raw
        images = [_read(os.fspath(one), self.mode, self.resize) for one in raw]
        for path, image in zip(raw, images):
            if self.size is not None and image.shape[1:] != self.size:
                raise _other_size(os.fspath(path), image.shape[1:], "those of the training", self.size)
        return np.stack(images)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {"classes": self.classes, "mode": self.mode, "resize": self.resize, "size": self.size}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ImageFormat:
        """The format that `to_json` described."""
        resize, size = stored["resize"], stored["size"]
        return cls(
            stored["classes"],
            stored["mode"],
            tuple(resize) if isinstance(resize, list) else resize,
            None if size is None else (size[0], size[1]),
        )


class ImageFolder(Dataset):
    """Images in folders, one folder for each class, as in torchvision: `root/cat/1.png`, `root/dog/a/2.jpg`.

    A row is (image, number of its class): the image as a tensor (channels, height, width), float32 from 0 to 1, read
    from its file whenever it is asked for. Needs Pillow, the extra `images`.
    root: the folder of the folders. Files whose names do not end like an image's, and hidden ones, are passed over.
    resize: (height, width), or one number for squares that keep the middle of each image and stretch nothing. Without
        it all images must have one size; that is looked up at once. mode: "RGB", or "L" for grey.
    classes: names of folders; by default all of them in alphabetical order.
    Has `classes`, `class_to_idx`, `samples` [(path, class)] and `targets`. Raises DataError where there are no images,
    or where their sizes differ.

    >>> import os, tempfile, chainrule as cr
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("rose", "tulip"):
    ...         os.mkdir(f"{root}/{name}")
    ...         Image.new("RGB", (8, 8), "red").save(f"{root}/{name}/1.png")
    ...     flowers = cr.data.ImageFolder(root, resize=4)
    ...     image, label = flowers[1]
    >>> flowers.classes, image.shape, label
    (['rose', 'tulip'], (3, 4, 4), 1)
    """

    def __init__(
        self,
        root: Path,
        *,
        resize: int | Sequence[int] | None = None,
        mode: str = "RGB",
        classes: Sequence[str] | None = None,
        **unknown: Any,
    ) -> None:
        _refuse_unknown(unknown)
        load("PIL.Image", "images")  # told before the folder is searched
        self.root = os.fspath(root)
        self.mode, self.resize = _checked_mode(mode), _checked_size(resize)
        self.classes = _classes(self.root, classes)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples = [
            (path, number) for name, number in self.class_to_idx.items() for path in self._files(name)
        ]
        self.targets = np.array([number for _, number in self.samples], np.int64)
        size = self._one_size() if self.resize is None else _final_size(self.resize)
        self.preparation = ImageFormat(self.classes, self.mode, self.resize, size)

    def _files(self, name: str) -> list[str]:
        found = list(_image_files(os.path.join(self.root, name)))
        if not found:
            raise DataError(
                f"every class needs images; got none in {os.path.join(self.root, name)!r} (names that end in "
                f"{', '.join(_ENDINGS)}). Remove the folder, or name classes="
            )
        return found

    def _one_size(self) -> tuple[int, int]:
        first, size = self.samples[0][0], None
        for path, _ in self.samples:
            found = _size_of(path)
            size = size or found
            if found != size:
                raise _other_size(path, found, repr(os.path.basename(first)), size)
        assert size is not None
        return size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, number = self.samples[index]
        return wrap(constant(_read(path, self.mode, self.resize))), number

    def take(self, rows: Rows, epoch: int = 1) -> tuple[Pixels, NDArray[np.int64]]:
        """(images, classes) of the rows at these positions, as arrays."""
        images = [_read(self.samples[int(row)][0], self.mode, self.resize) for row in rows]
        for row, image in zip(rows, images):  # a file may have been replaced since its size was looked up
            if image.shape != images[0].shape:
                first = os.path.basename(self.samples[int(rows[0])][0])
                raise _other_size(
                    self.samples[int(row)][0], image.shape[1:], repr(first), images[0].shape[1:]
                )
        return np.stack(images), self.targets[rows]

    def fingerprint(self) -> str:
        """SHA-256 of the names and contents of all files, and of how they are read."""
        found = hashlib.sha256(repr((self.classes, self.mode, self.resize)).encode())
        for path, number in self.samples:
            name = os.path.relpath(path, self.root)
            found.update(f"{number}\0".encode() + os.fsencode(name) + b"\0")
            try:
                with open(path, "rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise _no_image(path, error) from error
        return found.hexdigest()

    def __repr__(self) -> str:
        size = self.preparation.size
        return (
            f"ImageFolder({len(self)} images of {len(self.classes)} classes, {self.mode}, "
            f"{size[0]} × {size[1]}, in {self.root!r})"
        )


# ------------------------------------------------------------------------------------------- folders


def _classes(root: str, wanted: Sequence[str] | None) -> list[str]:
    try:
        with os.scandir(root) as entries:
            found = sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"a folder of images is needed; got {root!r}: {error.strerror}. Check the path"
        ) from error
    if wanted is None:
        if not found:
            raise DataError(
                f"images need a folder for each class; got {root!r} without folders. Put them into {root}/cat, "
                f"{root}/dog …"
            )
        return found
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(found) or 'none'}"
            raise DataError(f"every class needs a folder; got no {name!r} in {root!r}. {advice}")
    return list(wanted)


def _image_files(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(_ENDINGS) and not name.startswith("."):
                yield os.path.join(place, name)


def _other_size(path: str, size: tuple[int, ...], other: str, wanted: tuple[int, ...]) -> DataError:
    return DataError(
        f"images need one size; got {size[0]} × {size[1]} in {path!r} and {wanted[0]} × {wanted[1]} in {other}. Write "
        f"resize={wanted[0] if wanted[0] == wanted[1] else tuple(wanted)}"
    )


# ------------------------------------------------------------------------------------------- files


def _read(path: str, mode: str, resize: int | tuple[int, int] | None) -> Pixels:
    module = load("PIL.Image", "images")
    try:
        with module.open(path) as image:
            upright = load("PIL.ImageOps", "images").exif_transpose(image)
            return _pixels(_resized(_converted(upright, mode), resize, module), mode)
    except FileNotFoundError as error:
        raise DataError(
            f"an image file is needed; got {path!r}, which does not exist. Check the path"
        ) from error
    except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:
        raise _no_image(path, error) from error


def _size_of(path: str) -> tuple[int, int]:
    """(height, width) as the file's head says, after the turn that its camera noted."""
    module = load("PIL.Image", "images")
    try:
        with module.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # the tag Orientation of EXIF
    except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:
        raise _no_image(path, error) from error
    return (width, height) if turned else (height, width)


def _no_image(path: str, error: Exception) -> DataError:
    said = (
        "it cannot be identified as an image"
        if type(error).__name__ == "UnidentifiedImageError"
        else str(error)
    )
    return DataError(
        f"a whole image file is needed; got {path!r}: {said}. Replace it, or take it out of the folder"
    )


def _converted(image: Any, mode: str) -> Any:
    """The image in a mode of 8 bits, or of floats from 0 to 1 where it had more than 8."""
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut everything above 255 off
        numbers = np.asarray(image).astype(np.float32)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise ValueError(
                f"grey of 16 bits goes from 0 to 65535, not {numbers.min():g} to {numbers.max():g}"
            )
        return load("PIL.Image", "images").fromarray(numbers / np.float32(65535))
    if image.mode == "F":
        raise ValueError("images of floats do not say what white is")
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Any, resize: int | tuple[int, int] | None, module: Any) -> Any:
    if resize is None:
        return image
    height, width = _final_size(resize)
    if isinstance(resize, int):
        side = min(image.size)
        left, top = ((one - side) // 2 for one in image.size)
        image = image.crop((left, top, left + side, top + side))
    return image.resize((width, height), module.Resampling.BILINEAR)


def _pixels(image: Any, mode: str) -> Pixels:
    array = np.asarray(image)
    pixels = (
        array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.float32) / np.float32(255)
    )
    if pixels.ndim == 2:
        return np.ascontiguousarray(np.broadcast_to(pixels, (_MODES[mode], *pixels.shape)))
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))


# ------------------------------------------------------------------------------------------- arguments


def _final_size(resize: int | tuple[int, int]) -> tuple[int, int]:
    return (resize, resize) if isinstance(resize, int) else resize


def _checked_mode(mode: str) -> str:
    if mode not in _MODES:
        raise ArgumentError(f"mode must be 'RGB' or 'L' (grey); got {mode!r}")
    return mode


def _checked_size(resize: Any) -> int | tuple[int, int] | None:
    parts = [resize] if isinstance(resize, int) else list(resize) if isinstance(resize, list | tuple) else []
    if resize is not None and (
        len(parts) not in (1, 2)
        or not all(isinstance(one, int) and one > 0 and one is not True for one in parts)
    ):
        raise ArgumentError(f"resize must be a whole number, or (height, width); got {resize!r}")
    return None if resize is None else parts[0] if isinstance(resize, int) else (parts[0], parts[-1])


def _refuse_unknown(unknown: dict[str, Any]) -> None:
    for name in unknown:
        advice = {
            "transform": "Write resize= and mode=; random changes go to cr.fit(…, augment=…) or DataLoader",
            "target_transform": "Name the classes in the order of their numbers: classes=",
            "size": "Write resize=",
        }.get(name, "It takes resize, mode and classes")
        raise ArgumentError(f"ImageFolder has no argument {name!r}. {advice}")
