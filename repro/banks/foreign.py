"""Samples that others released: folders, archives and .npz files of images, numbered by name or by order."""

from __future__ import annotations

import os
import zipfile
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.data.arrays import channels_first
from repro.data.names import natural_order
from repro.errors import UserError
from repro.files import BROKEN_ARRAY
from repro.images import to_uint8

__all__ = ["NumberedImages", "as_images", "numbered_images"]

_MOST_BYTES = 16 << 30
_ARRAYS = (".npz", ".npy")


class NumberedImages(NamedTuple):
    """Images from elsewhere, and the numbers of their noises.

    Attributes:
        images: uint8, shape (n, C, H, W).
        seeds: n different numbers.
        by: Where the numbers come from: ``name`` of the files, or ``order``.
    """

    images: Tensor
    seeds: list[int]
    by: Literal["name", "order"]


def numbered_images(path: str | os.PathLike[str]) -> NumberedImages:
    """Reads images and the number of each one's noise.

    Read are a folder, zip or tar of image files in any depth, an .npz or .npy file, or a folder of such. Image files
    whose names are numbers (``000017.png``) have those numbers; others, and the rows of arrays, are counted from 0
    in natural order of the names. An .npz file holds one array of images as :func:`as_images` takes them.

    Args:
        path: The folder or file.

    Raises:
        UserError: nothing there, no image, images of several sizes, a broken file.
    """
    path = Path(path)
    files = [path] if path.suffix in _ARRAYS else [file for file in path.glob("*") if file.suffix in _ARRAYS]
    files.sort(key=lambda file: natural_order(file.name))
    if files and files[0].is_file():
        parts = [as_images(_read_npz(file) if file.suffix == ".npz" else _read_npy(file), str(file)) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.shape[1:] != parts[0].shape[1:]:
                raise UserError(
                    f"{file} holds images {tuple(part.shape[1:])}, {files[0].name} {tuple(parts[0].shape[1:])}; "
                    "samples of one system have one shape"
                )
        images = torch.cat(parts)
        return NumberedImages(images, list(range(len(images))), "order")
    return _read_files(path)


def as_images(source: Tensor | np.ndarray, name: str) -> Tensor:
    """Turns images in any usual form into uint8 (n, C, H, W).

    Args:
        source: uint8 in [0, 255], or floats in [0, 1] or, where one is negative, in [-1, 1]; of shape (n, C, H, W) or
            (n, H, W, C) with C of 1 to 16, or (n, H, W); see :func:`repro.data.arrays.channels_first`.
        name: What they are called in messages.

    Raises:
        UserError: another type, shape or range, or a value that is not finite.

    Example:
        >>> as_images(np.full((2, 8, 8, 3), 0.5), "mine").shape
        torch.Size([2, 3, 8, 8])
    """
    images = torch.as_tensor(source).detach().cpu()
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not len(images):
        raise UserError(f"{name} has shape {tuple(images.shape)}; give images (n, C, H, W) or (n, H, W, C)")
    images = torch.from_numpy(channels_first(images.numpy(), name))
    if images.is_floating_point():
        low, high = float(images.min()), float(images.max())  # NaN where one is
        if not (low >= -1 and high <= 1):
            raise UserError(
                f"{name} holds floats from {low:g} to {high:g}; give floats in [0, 1] or [-1, 1], or uint8 in [0, 255]"
            )
        images = to_uint8(images if low < 0 else images * 2 - 1)
    if images.dtype != torch.uint8:
        raise UserError(f"{name} holds {images.dtype}; give uint8 in [0, 255], or floats in [0, 1] or [-1, 1]")
    return images.contiguous()


def _read_files(path: Path) -> NumberedImages:
    from repro.data.archive import EncodedSource, ImageArchive

    source = ImageArchive(str(path), labelled=False, cache=False).open_source()
    assert isinstance(source, EncodedSource)  # it is another one only when there is a cache
    names = source.listing.names
    stems = [Path(name).stem for name in names]
    seeds = [int(stem) for stem in stems if stem.isdecimal()]
    if len(set(seeds)) == len(names):
        order = sorted(range(len(names)), key=seeds.__getitem__)
        return NumberedImages(source.read(np.asarray(order)), sorted(seeds), "name")
    order = sorted(range(len(names)), key=lambda index: natural_order(names[index]))
    return NumberedImages(source.read(np.asarray(order)), list(range(len(names))), "order")


def _read_npy(path: Path) -> np.ndarray:
    """The array in an .npy file, mapped from the disk."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise UserError(f"{path} cannot be read as .npy: {' '.join(str(error).split())}; get it again") from error


def _read_npz(path: Path) -> np.ndarray:
    """The one array of images in an .npz file; its size is looked at before it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_BYTES:
            raise UserError(f"{path} unpacks to {size:,} bytes; at most {_MOST_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as arrays:
            shapes = {name: _header(arrays, name) for name in arrays.files}
            forms = product("uf", (4, 3))  # floats only where nothing is of whole numbers, grey without a channel last
            alike = ([name for name, (dtype, shape) in shapes.items() if (dtype.kind, len(shape)) == f] for f in forms)
            names = next(filter(None, alike), [])
            if len(names) != 1:
                held = ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in list(shapes.items())[:5])
                raise UserError(
                    f"{path} holds {held or 'nothing'}; it needs one array of images, uint8 or float (n, H, W, C)"
                )
            return arrays[names[0]]
    except BROKEN_ARRAY as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as .npz: {' '.join(str(error).split())}; get it again") from error


def _header(arrays: np.lib.npyio.NpzFile, name: str) -> tuple[np.dtype, tuple[int, ...]]:
    archive = arrays.zip
    assert archive is not None  # until it is closed
    with archive.open(name if name in archive.namelist() else f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return dtype, shape
