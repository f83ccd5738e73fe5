"""Samples that others released: folders, archives and .npz files of images, numbered by name or by order."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from repro.data.names import natural_order
from repro.errors import UserError

__all__ = ["numbered_images"]

_MOST_BYTES = 16 << 30


def numbered_images(path: str | os.PathLike[str]) -> tuple[Tensor, list[int]]:
    """Images and the number of each one's noise.

    Read are a folder, zip or tar of image files in any depth, an .npz file, or a folder of .npz files. Image files
    whose names are numbers (``000017.png``) have those numbers; others, and the rows of .npz files, are counted from 0
    in natural order of the names. An .npz file holds one uint8 array (n, H, W, C) or (n, C, H, W).

    Args:
        path: The folder or file.

    Returns:
        uint8 images (n, C, H, W), and n different numbers.

    Raises:
        UserError: nothing there, no image, images of several sizes, a broken file.
    """
    path = Path(path)
    files = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"), key=lambda file: natural_order(file.name))
    if files and files[0].is_file():
        parts = [_read_npz(file) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.shape[1:] != parts[0].shape[1:]:
                raise UserError(
                    f"{file} holds images {tuple(part.shape[1:])}, {files[0].name} {tuple(parts[0].shape[1:])}; "
                    "samples of one system have one shape"
                )
        images = torch.cat(parts)
        return images, list(range(len(images)))
    return _read_files(path)


def _read_files(path: Path) -> tuple[Tensor, list[int]]:
    from repro.data.archive import ImageArchive

    source = ImageArchive(str(path), labelled=False, cache=False).open_source()
    names = source.listing.names
    stems = [Path(name).stem for name in names]
    seeds = [int(stem) for stem in stems if stem.isdecimal()]
    if len(set(seeds)) == len(names):
        order = sorted(range(len(names)), key=seeds.__getitem__)
        return source.read(np.asarray(order)), sorted(seeds)
    order = sorted(range(len(names)), key=lambda place: natural_order(names[place]))
    return source.read(np.asarray(order)), list(range(len(names)))


def _read_npz(path: Path) -> Tensor:
    """The one uint8 array of images in an .npz file; its size is looked at before it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_BYTES:
            raise UserError(f"{path} unpacks to {size:,} bytes; at most {_MOST_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as arrays:
            shapes = {name: _header(arrays, name) for name in arrays.files}
            found = [name for name, (dtype, shape) in shapes.items() if dtype == np.uint8 and len(shape) == 4]
            if len(found) != 1:
                held = ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in list(shapes.items())[:5])
                raise UserError(f"{path} holds {held or 'nothing'}; it needs one uint8 array of images (n, H, W, C)")
            images = arrays[found[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as .npz: {' '.join(str(error).split())}; get it again") from error
    if images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.shape[1] not in (1, 3):
        raise UserError(f"{path} holds images of shape {images.shape}; they have 1 or 3 channels")
    return torch.from_numpy(np.ascontiguousarray(images))


def _header(arrays: np.lib.npyio.NpzFile, name: str) -> tuple[np.dtype, tuple[int, ...]]:
    member = name if name in arrays.zip.namelist() else f"{name}.npy"
    with arrays.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return dtype, shape
