"""Images in a NumPy file, of any size and 1 to 16 channels."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from repro.data.base import ImageData
from repro.data.source import ArraySource
from repro.errors import UserError, unknown
from repro.files import BROKEN_ARRAY

__all__ = ["MOST_CHANNELS", "ImageArray", "channels_first", "read_arrays"]

MOST_CHANNELS = 16
"""Most channels of an image."""
_MOST_BYTES = 16 << 30
_ORDERS = ("first", "last")


class ImageArray(ImageData):
    """The uint8 images of an ``.npy`` or ``.npz`` file: 1 to 16 channels, square or not.

    The file holds one uint8 array (n, C, H, W) or (n, H, W, C); an ``.npz`` file may also hold one array of n integers,
    the labels 0, 1, 2, ... Nothing in it is executed. Floats in [-1, 1] need a data plug-in of their own.

    Args:
        path: The file.
        channels: Whether channels are the ``first`` or the ``last`` axis of an image; None takes 1 or 3 channels
            wherever they stand, and else the axis that differs from the two of a square.
        labelled: Whether labels in the file are classes.
        common: As of every data set.

    Raises:
        UserError: an unknown order of channels; on first use: no such file, one that holds something else, an array
            whose channels can be either axis.
    """

    def __init__(
        self, path: str, *, channels: Literal["first", "last"] | None = None, labelled: bool = True, **common: Any
    ) -> None:
        super().__init__(**common)
        if channels not in (None, *_ORDERS):
            raise unknown("order of channels", channels, _ORDERS)
        self.path, self.channels, self.labelled = path, channels, labelled

    def open_source(self) -> ArraySource:
        """Reads the file; an ``.npy`` file is mapped and read as its images are asked for."""
        images, labels = read_arrays(self.path)
        images = channels_first(images, self.path, self.channels)
        if labels is None or not self.labelled:
            return ArraySource(torch.from_numpy(images))
        if int(labels.min()) < 0 or int(labels.max()) > np.iinfo(np.int32).max:
            raise UserError(f"{self.path} has the label {int(labels.min())}; labels are 0, 1, 2, ...")
        names = [str(number) for number in range(int(labels.max()) + 1)]
        return ArraySource(torch.from_numpy(images), labels.astype(np.int64), names)


def channels_first(
    images: NDArray[Any], path: str | os.PathLike[str], order: Literal["first", "last"] | None = None
) -> NDArray[Any]:
    """Views images (n, C, H, W) or (n, H, W, C) as (n, C, H, W).

    Args:
        images: The array.
        path: Its file, for errors.
        order: Which axis holds the channels, or None to tell by its length.

    Raises:
        UserError: more than 16 channels, or axes that can both be channels.

    Example:
        >>> channels_first(np.zeros((2, 8, 12, 3), np.uint8), "x.npy").shape
        (2, 3, 8, 12)
    """
    order = order or _order(*images.shape[1:])
    if order is None:
        raise UserError(
            f"{path} holds images of shape {images.shape[1:]}, of which either end may be the channels; give "
            "--data.channels first or last"
        )
    images = images if order == "first" else images.transpose(0, 3, 1, 2)
    if images.shape[1] > MOST_CHANNELS:
        raise UserError(f"{path} holds images of {images.shape[1]} channels; at most {MOST_CHANNELS} are read")
    return images


def _order(one: int, two: int, three: int) -> Literal["first", "last"] | None:
    """Which end of the axes is the channels: 1 or 3, else the only one of at most 16, else the odd one of a square."""
    if three in (1, 3):
        return "last"
    if one in (1, 3):
        return "first"
    if one <= MOST_CHANNELS < three or (two == three != one):
        return "first"
    return "last" if three <= MOST_CHANNELS < one or (one == two != three) else None


def read_arrays(path: str | os.PathLike[str]) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]] | None]:
    """The one uint8 array of images in an ``.npy`` or ``.npz`` file, 4 axes, and its labels, n integers, if any.

    Raises:
        UserError: no such file, a damaged or larger one, or one that holds something else.
    """
    path = Path(path).expanduser()
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"PK"
        arrays = _unpacked(path) if packed else {"array": np.load(path, mmap_mode="c", allow_pickle=False)}
    except BROKEN_ARRAY as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as .npy or .npz: {reason}; get it again") from error
    images = [array for array in arrays.values() if array.dtype == np.uint8 and array.ndim == 4 and array.size]
    if len(images) != 1:
        held = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in list(arrays.items())[:5])
        raise UserError(f"{path} holds {held or 'nothing'}; it needs one uint8 array of images (n, H, W, C)")
    labels = [a for a in arrays.values() if a.dtype.kind in "iu" and a.shape == images[0].shape[:1]]
    return images[0], labels[0] if len(labels) == 1 else None


def _unpacked(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; their size is looked at before they are read."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MOST_BYTES:
        raise UserError(f"{path} unpacks to {size:,} bytes; at most {_MOST_BYTES:,} are read")
    arrays: dict[str, NDArray[Any]] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            array = file[name]
            if isinstance(array, np.ndarray):
                arrays[name] = array
    return arrays
