"""Where images come from: an ordered set whose images are read by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.data.pixels import fit_array
from repro.data.progress import slow_progress
from repro.errors import UserError, unknown

__all__ = ["ArraySource", "ClassSource", "FittedSource", "ImageSource", "SubsetSource"]


class ImageSource(ABC):
    """An ordered set of labelled images of one shape.

    Attributes:
        image_shape: (C, H, W) of every image.
        labels: Class of every image, int64 (n,); zeros when there are no classes.
        class_names: One name a class, empty when there are none.
    """

    image_shape: tuple[int, int, int]
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def prepare(self) -> None:
        """Does work that is needed once, before readers in other processes start; by default none."""
        return

    def check(self, indices: NDArray[np.int64]) -> None:
        """Looks at the images with these numbers without keeping them; by default there is nothing to look at.

        Raises:
            UserError: names all that cannot be read.
        """
        return

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """The images with these numbers: uint8 (k, C, H, W), or floats of data that are no pictures; contiguous."""


class ArraySource(ImageSource):
    """Images that are an array already.

    Args:
        images: uint8 (n, C, H, W) with any strides: a view of an (n, H, W, C) array will do.
        labels: Class of every image, (n,) integers; None when there are no classes.
        class_names: One name a class.

    Example:
        >>> source = ArraySource(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), [0, 1, 0], ["odd", "even"])
        >>> tuple(source.read(np.array([2, 0])).shape)
        (2, 1, 8, 8)
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | NDArray[np.int64] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.images = images
        self.labels = torch.zeros(len(images), dtype=torch.int64)
        if labels is not None:
            self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.class_names = tuple(class_names)
        self.image_shape = tuple(images.shape[1:])

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Copies the images with these numbers out of the array."""
        return self.images.index_select(0, torch.from_numpy(np.array(indices))).contiguous()


class FittedSource(ImageSource):
    """A source with its images scaled or turned grey as they are read; see :func:`repro.data.pixels.fit_pixels`.

    Args:
        source: Where the images come from.
        resize: Side of the square images, or None to keep their size.
        grayscale: Whether to turn them grey.

    Raises:
        UserError: turning images grey that have neither 1 nor 3 channels, or scaling floats.
    """

    def __init__(self, source: ImageSource, resize: int | None, grayscale: bool) -> None:
        self.source, self.resize = source, resize
        self.labels, self.class_names = source.labels, source.class_names
        channels, height, width = source.image_shape
        if grayscale and channels not in (1, 3):
            raise UserError(f"images of {channels} channels cannot be turned grey; leave grayscale out")
        self.image_shape = (1 if grayscale else channels, resize or height, resize or width)

    def prepare(self) -> None:
        """Prepares the source that the images come from."""
        self.source.prepare()

    def check(self, indices: NDArray[np.int64]) -> None:
        """Checks the source's images with these numbers."""
        self.source.check(indices)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Reads the images with these numbers and scales them or turns them grey."""
        fitted: NDArray[np.uint8] = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        with slow_progress("scaling images", len(indices)) as done:
            for row, image in enumerate(self.source.read(indices).numpy()):
                fitted[row] = fit_array(image, self.resize, len(fitted[row]) < len(image))
                done(row + 1)
        return torch.from_numpy(fitted)


class SubsetSource(ImageSource):
    """Some images of a source, read when they are asked for.

    Args:
        source: All of them.
        indices: Numbers of the chosen ones, in the order wanted.
    """

    def __init__(self, source: ImageSource, indices: NDArray[np.int64]) -> None:
        self.source, self.indices = source, indices
        self.labels = source.labels[torch.from_numpy(np.array(indices))]
        self.class_names, self.image_shape = source.class_names, source.image_shape

    def prepare(self) -> None:
        """Prepares the source that the images come from."""
        self.source.prepare()

    def check(self, indices: NDArray[np.int64]) -> None:
        """Checks the chosen ones with these numbers."""
        self.source.check(self.indices[indices])

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Reads the chosen ones with these numbers."""
        return self.source.read(self.indices[indices])


class ClassSource(SubsetSource):
    """The images of some classes, in their order; the classes become 0, 1, 2, ...

    Args:
        source: All of them.
        classes: Names or numbers of the classes to keep, all different; text is a name before it is a number.

    Raises:
        UserError: no class of the source, or one twice.
    """

    def __init__(self, source: ImageSource, classes: Sequence[int | str]) -> None:
        names = source.class_names
        numbers = [_number_of(each, names) for each in classes]
        if len(set(numbers)) < len(numbers):
            raise UserError(f"classes is {list(classes)}, which names one class twice; give each once")
        kept = torch.isin(source.labels, torch.tensor(numbers))
        super().__init__(source, kept.nonzero().flatten().numpy())
        places = torch.zeros(len(names), dtype=torch.int64)
        places[numbers] = torch.arange(len(numbers))
        self.labels = places[self.labels]
        self.class_names = tuple(names[number] for number in numbers)


def _number_of(wanted: int | str, names: Sequence[str]) -> int:
    if isinstance(wanted, str):
        if wanted in names:
            return names.index(wanted)
        if not wanted.isdecimal():
            raise (
                unknown("class", wanted, names)
                if names
                else UserError(f"class {wanted} is not in the data: it has none")
            )
    number = int(wanted)
    if not 0 <= number < len(names):
        known = f"give 0 to {len(names) - 1}" if names else "it has none"
        raise UserError(f"class {number} is not in the data: {known}")
    return number
