"""Images changed at random while a network learns from them, so that it learns what stays the same.

Every change is a function (images, chance) → images of a whole batch; `chance` has the random numbers of each row, so
an image is changed in the same way whoever stands beside it in the batch. Names are torchvision's.
Knows arrays and chance; knows nothing of files and of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from .chance import Chance

Array = NDArray[Any]
Change = Callable[[Any, Chance], Any]


class Augmentation:
    """Base of the changes: the last two axes of (N, …, height, width) are an image.

    To write one's own, give any function (images, chance) → images; `chance.uniform()` and the like have a number for
    each of the N rows.
    """

    def __call__(self, images: Any, chance: Chance) -> Array:
        """The images, changed. Raises DataError for anything that is no batch of images."""
        name = type(self).__name__
        if not isinstance(images, np.ndarray):
            raise DataError(
                f"{name} changes one array of images; got a {type(images).__name__}. Write a function "
                "(inputs, chance) → inputs for inputs of several arrays"
            )
        if images.ndim < 3:
            raise DataError(
                f"{name} needs images (N, channels, height, width); got shape {images.shape}. Reshape the rows"
            )
        return self._changed(images, chance)

    def _changed(self, images: Array, chance: Chance) -> Array:
        raise ArgumentError(f"{type(self).__name__} needs a method _changed(images, chance)")

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._options().items())})"


class _Flip(Augmentation):
    _axis = -1

    def __init__(self, p: float = 0.5) -> None:
        self.p = _share("p", p)

    def _changed(self, images: Array, chance: Chance) -> Array:
        chosen = chance.uniform() < self.p
        result = images.copy()
        result[chosen] = np.flip(images[chosen], self._axis)
        return result


class RandomHorizontalFlip(_Flip):
    """Left and right exchanged, with probability `p` for each image.

    >>> images = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> RandomHorizontalFlip(p=1.0)(images, Chance.of(0, 1, np.array([0])))[0, 0].tolist()
    [[1.0, 0.0], [3.0, 2.0]]
    """


class RandomVerticalFlip(_Flip):
    """Top and bottom exchanged, with probability `p` for each image.

    >>> images = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> RandomVerticalFlip(p=1.0)(images, Chance.of(0, 1, np.array([0])))[0, 0].tolist()
    [[2.0, 3.0], [0.0, 1.0]]
    """

    _axis = -2


class RandomCrop(Augmentation):
    """A window of `size` at a random place of each image.

    size: (height, width), or one number for both; None: that of the images. padding: rows and columns of `fill` that
    are put around the images before, one number or (vertical, horizontal). With padding=1 and no size an image moves
    by up to one place in each direction. Raises DataError for images that are smaller than the window.

    >>> crop = RandomCrop(2, padding=1)
    >>> crop(np.ones((5, 3, 2, 2)), Chance.of(0, 1, np.arange(5))).shape
    (5, 3, 2, 2)
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        fill: float = 0.0,
    ) -> None:
        self.size = None if size is None else _two("size", size, 1)
        self.padding = _two("padding", padding, 0)
        self.fill = float(fill)

    def _changed(self, images: Array, chance: Chance) -> Array:
        (down, across), size = self.padding, self.size or images.shape[-2:]
        around = [(0, 0)] * (images.ndim - 2) + [(down, down), (across, across)]
        padded = np.pad(images, around, constant_values=images.dtype.type(self.fill))
        free = [whole - part for whole, part in zip(padded.shape[-2:], size)]
        if min(free) < 0:
            raise DataError(
                f"a window of {size[0]} × {size[1]} needs images of that size; got {padded.shape[-2]} × "
                f"{padded.shape[-1]} with their padding. Use a smaller size, or more padding"
            )
        top, left = (chance.integers(0, one + 1) for one in free)
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(-2, -1))
        # One window of each image; the axes in between (channels) are whole.
        places = np.arange(len(images))
        return np.ascontiguousarray(np.moveaxis(windows, (-4, -3), (1, 2))[places, top, left])


class RandomShift(RandomCrop):
    """Each image moved by up to `pixels` in each direction, at random; what comes in is `fill`.

    pixels: one number, or (vertical, horizontal).

    >>> RandomShift(1)(np.ones((5, 1, 4, 4)), Chance.of(0, 1, np.arange(5))).shape
    (5, 1, 4, 4)
    """

    def __init__(self, pixels: int | Sequence[int], fill: float = 0.0) -> None:
        super().__init__(None, _two("pixels", pixels, 1 if isinstance(pixels, int) else 0), fill)

    def _options(self) -> dict[str, Any]:
        return {"pixels": self.padding, "fill": self.fill}


class GaussianNoise(Augmentation):
    """Normally distributed noise added to every number; with `clip` the result is kept in 0 … 1.

    >>> noisy = GaussianNoise(sigma=0.1)(np.full((2, 1, 3, 3), 0.5, np.float32), Chance.of(0, 1, np.arange(2)))
    >>> noisy.shape, bool(0.02 < noisy.std() < 0.3)
    ((2, 1, 3, 3), True)
    """

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, clip: bool = True) -> None:
        if not sigma >= 0:
            raise ArgumentError(f"sigma must be a number from 0; got {sigma!r}")
        self.mean, self.sigma, self.clip = float(mean), float(sigma), bool(clip)

    def _changed(self, images: Array, chance: Chance) -> Array:
        if images.dtype.kind != "f":
            raise DataError(
                f"GaussianNoise needs images of floats; got {images.dtype.name}. Write cr.data.as_images(images)"
            )
        noise = chance.normal(images.shape[1:]) * np.float32(self.sigma) + np.float32(self.mean)
        result = images + noise.astype(images.dtype)
        return np.asarray(np.clip(result, 0.0, 1.0) if self.clip else result)


class Compose:
    """Changes one after the other.

    >>> Compose([RandomHorizontalFlip(), RandomShift(1)])
    Compose([RandomHorizontalFlip(p=0.5), RandomShift(pixels=(1, 1), fill=0.0)])
    """

    def __init__(self, changes: Iterable[Change]) -> None:
        self.changes = list(changes)
        for one in self.changes:
            if isinstance(one, type) or not callable(one):
                shown = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
                fix = f"Write {one.__name__}()" if isinstance(one, type) else "Give RandomHorizontalFlip() …"
                raise ArgumentError(
                    f"a change must be a function (images, chance) → images; got {shown}. {fix}"
                )

    def __call__(self, images: Any, chance: Chance) -> Any:
        """The images after all changes; each change has random numbers of its own."""
        for place, change in enumerate(self.changes):
            images = change(images, chance.fork(place))
        return images

    def __repr__(self) -> str:
        return f"Compose([{', '.join(described(one) for one in self.changes)}])"


def as_augmentation(augment: Any) -> Compose:
    """What `augment=` stands for: one change, or a list of them. ArgumentError for anything else."""
    if isinstance(augment, Compose):
        return augment
    return Compose(augment if isinstance(augment, list | tuple) else [augment])


def described(change: Any) -> str:
    """A change as a record can hold it, the same in every process."""
    if isinstance(change, Augmentation | Compose):
        return repr(change)
    return str(getattr(change, "__qualname__", type(change).__qualname__))


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ArgumentError(f"{name} must be a probability from 0 to 1; got {value!r}")
    return float(value)


def _two(name: str, value: Any, least: int) -> tuple[int, int]:
    """One whole number for both directions, or two."""
    pair = (
        (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    )
    if len(pair) != 2 or not all(isinstance(one, int) and one >= least and one is not True for one in pair):
        raise ArgumentError(
            f"{name} must be a whole number from {least}, or two of them (vertical, horizontal); got {value!r}"
        )
    return int(pair[0]), int(pair[1])
