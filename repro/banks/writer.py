"""The one way to make a sample bank on the disk: shard by shard, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.banks.bank import check_rows
from repro.banks.manifest import MANIFEST_NAME, Manifest, add_checksums, format_seeds, read_manifest, write_manifest
from repro.banks.shards import Shards
from repro.errors import UserError
from repro.files import make_folder, sweep_parts, write_whole

__all__ = ["BankWriter"]


class BankWriter:
    """Writes a bank shard by shard; the one way to make a bank on the disk.

    An existing bank of the same manifest is continued, so the same call starts and resumes. Every process of a
    distributed run makes its own writer on the same folder and asks for its own part.

    Args:
        path: The folder; made when it is missing.
        manifest: What is going to be drawn, as a :class:`Manifest` or its keys.
        shard_size: Seeds a file; a bank that exists keeps its own.

    Raises:
        UserError: the folder holds a bank of other samples (the message names the keys that differ) or other files,
            or it cannot be written.

    Example:
        >>> writer = BankWriter("runs/bank", {"seeds": range(1000), "image_shape": (1, 8, 8)})  # doctest: +SKIP
        >>> for seeds in writer.missing():  # doctest: +SKIP
        ...     writer.write(seeds, to_uint8(model.generate(seeds)))
    """

    def __init__(
        self, path: str | os.PathLike[str], manifest: Manifest | Mapping[str, Any], shard_size: int | None = None
    ) -> None:
        self.path = Path(path)
        wanted = manifest if isinstance(manifest, Manifest) else Manifest(**manifest)
        if shard_size is not None:
            wanted = replace(wanted, shard_size=int(shard_size))
        make_folder(self.path)
        if not (self.path / MANIFEST_NAME).exists():
            _refuse_others(self.path)
            with suppress(FileExistsError):
                write_manifest(self.path, replace(wanted, checksums={}), overwrite=False)
        self.manifest = read_manifest(self.path)
        sweep_parts(self.path)
        if differences := self.manifest.differences(wanted):
            raise UserError(
                f"{self.path} holds a bank of other samples: {'; '.join(differences)}; "
                "name another folder, or delete this one"
            )
        self._shards = Shards(self.path, self.manifest)

    def _present(self) -> list[int]:
        """The shards that are there now, those of other processes included."""
        return self._shards.present(read_manifest(self.path).checksums)

    @property
    def complete(self) -> bool:
        """Whether every shard is on the disk."""
        return len(self._present()) == self._shards.count

    def missing(self, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """Lists the seeds that are still to be drawn, one list a shard.

        Args:
            rank: Number of this process; shard s belongs to process ``s % world_size``, whatever is there already.
            world_size: Number of processes.
        """
        present = set(self._present())
        return [
            self._shards.seeds(shard) for shard in range(rank, self._shards.count, world_size) if shard not in present
        ]

    def write(self, seeds: Sequence[int], images: Tensor, labels: Tensor | None = None) -> None:
        """Writes one shard, whole or not at all.

        Args:
            seeds: One of the lists that :meth:`missing` gave.
            images: uint8, shape (len(seeds) * images_per_seed, C, H, W).
            labels: Class of each image when the bank is conditional.

        Raises:
            UserError: seeds that are no shard, images that do not fit, or a disk that is full.
        """
        seeds = [int(seed) for seed in seeds]
        shard = self._shards.shard_of.get(seeds[0]) if seeds else None
        if shard is None or self._shards.seeds(shard) != seeds:
            raise UserError(f"seeds {format_seeds(seeds)[:60]} are no shard of {self.path}; write what missing() lists")
        check_rows(self.manifest, seeds, images, labels)
        arrays = {} if labels is None else {self._shards.file("labels", shard): _array(labels.to(torch.int64))}
        arrays[self._shards.file("images", shard)] = _array(images)
        for path, array in arrays.items():
            with write_whole(path) as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)
        if self.manifest.checksums is not None:  # a bank that an older version began goes on without
            add_checksums(
                self.path, {path.name: hashlib.sha256(array.data).hexdigest() for path, array in arrays.items()}
            )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _refuse_others(folder: Path) -> None:
    """Raises a UserError where a folder without a bank holds something else, such as a run."""
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    others = [name for name in names if not name.startswith((MANIFEST_NAME, "images-", "labels-", "features-"))]
    if others:
        raise UserError(
            f"{folder} is not empty and holds no bank ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); "
            "name a new or empty folder"
        )
