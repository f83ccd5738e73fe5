"""Features of more images than fit into memory: one pass, any number of processes, one file that is mapped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro.data.source import ImageSource
from repro.descriptors.base import Descriptor
from repro.errors import UserError
from repro.files import make_folder, write_text, write_whole

__all__ = ["describe_source", "open_features"]

_FEATURES, _RECORD, _BLOCKS = "features.npy", "features.json", "blocks"


def describe_source(
    source: ImageSource,
    descriptor: Descriptor,
    folder: str | os.PathLike[str],
    rank: int = 0,
    world_size: int = 1,
    block: int = 4096,
    device: str = "cpu",
) -> int:
    """Writes the features of all images of a source into a folder, block by block; does only what is missing.

    Processes that are given the same folder share the work: each takes every ``world_size``-th block. Memory is that of
    one block of images and their features. A block counts as done only after its rows are on the disk, so that a run
    that was killed goes on where it was.

    Args:
        source: The images, for example ``ImageArchive("imagenet.tar").open_source()``.
        descriptor: The descriptor.
        folder: Made when missing. It belongs to one source and one descriptor.
        rank: Number of this process.
        world_size: How many there are.
        block: Images read at a time.
        device: Where the descriptor runs.

    Returns:
        How many blocks this call described.

    Raises:
        UserError: the folder holds features of other images or of another descriptor, or in blocks of another size.
    """
    folder = Path(folder)
    make_folder(folder / _BLOCKS)
    first = torch.as_tensor(source.read(np.arange(1)))
    size = descriptor.features(first, device=device).shape[1]
    record = {"descriptor": descriptor.name, "fingerprint": descriptor.fingerprint, "block": block}
    features = _opened(folder, record | {"rows": len(source), "size": size})
    done = 0
    for number in range(rank, -(-len(source) // block), world_size):
        mark = folder / _BLOCKS / f"{number:08}"
        if mark.is_file():
            continue
        rows = np.arange(number * block, min((number + 1) * block, len(source)))
        images = torch.as_tensor(source.read(rows))
        features[rows[0] : rows[-1] + 1] = descriptor.features(images, device=device).numpy()
        features.flush()
        write_text(mark, "")
        done += 1
    return done


def open_features(folder: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Features that :func:`describe_source` wrote, as an array that is mapped from the disk and never read whole.

    Raises:
        UserError: no features there, or blocks that are still missing.
    """
    folder = Path(folder)
    record = _record(folder)
    blocks = -(-record["rows"] // record["block"])
    missing = blocks - sum((folder / _BLOCKS / f"{number:08}").is_file() for number in range(blocks))
    if missing:
        raise UserError(f"{missing} of {blocks} blocks of features are missing in {folder}; run describe_source again")
    return np.load(folder / _FEATURES, mmap_mode="r")


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / _RECORD).is_file():
        raise UserError(f"no features in {folder}; write them with describe_source")
    return json.loads((folder / _RECORD).read_text(encoding="utf-8"))


def _opened(folder: Path, record: dict[str, Any]) -> NDArray[np.float32]:
    """The features' file, to be written into; made at its whole size by the first process that comes."""
    path = folder / _FEATURES
    if not path.is_file():
        try:
            with write_whole(path, overwrite=False) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (record["rows"], record["size"])}
                np.lib.format.write_array_header_2_0(file, header)
                file.truncate(file.tell() + 4 * record["rows"] * record["size"])
        except FileExistsError:
            pass  # another process was faster, and made the same file
        write_text(folder / _RECORD, json.dumps(record) + "\n")
    known = _record(folder) if (folder / _RECORD).is_file() else record
    for key in ("rows", "size", "fingerprint", "block"):
        if known[key] != record[key]:
            raise UserError(
                f"{folder} holds features of {known['rows']:,} images by {known['descriptor']} in blocks of "
                f"{known['block']:,}; {key} differs: give another folder"
            )
    return np.load(path, mmap_mode="r+")
