"""The files of a bank: which seeds stand in which shard, and shards that are what the manifest says of them."""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path

import numpy as np

from repro.banks.manifest import Manifest
from repro.errors import UserError
from repro.files import BROKEN_ARRAY

__all__ = ["Shards"]

_log = logging.getLogger(__name__)


class Shards:
    """The shards of a bank in a folder.

    Args:
        path: The folder.
        manifest: What they hold.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.count = -(-len(manifest.seeds) // manifest.shard_size)
        self._verified: set[Path] = set()

    def seeds(self, shard: int) -> list[int]:
        """Returns the seeds of one shard, in their order."""
        size = self.manifest.shard_size
        return self.manifest.seeds[shard * size : (shard + 1) * size]

    @functools.cached_property
    def shard_of(self) -> dict[int, int]:
        """Number of the shard that begins with a seed."""
        size = self.manifest.shard_size
        return {seed: shard for shard, seed in enumerate(self.manifest.seeds[::size])}

    def file(self, kind: str, shard: int) -> Path:
        """Returns the file of ``images`` or ``labels`` of one shard."""
        return self.path / f"{kind}-{shard:08d}.npy"

    def present(self, checksums: dict[str, str] | None) -> list[int]:
        """Returns numbers of the shards that are complete on the disk; of a bank with checksums, those that have one.

        Args:
            checksums: SHA-256 by the name of the file, or None for a bank that an older version began.
        """
        files = [(shard, self.file("images", shard)) for shard in range(self.count)]
        return [n for n, file in files if (checksums is None or file.name in checksums) and file.is_file()]

    def rows(self, shard: int) -> int:
        """Says how many images a shard holds."""
        return len(self.seeds(shard)) * self.manifest.images_per_seed

    def images(self, shard: int, verify: bool = True) -> np.ndarray:
        """Maps the images of a shard from its file: uint8 (rows, C, H, W).

        Args:
            shard: Which one.
            verify: Compare the bytes with their checksum, once for each file.

        Raises:
            UserError: the file is missing, is not what the manifest says, or was changed.
        """
        return self._read("images", shard, "uint8", (self.rows(shard), *self.manifest.image_shape), verify)

    def labels(self, shard: int) -> np.ndarray:
        """Returns the labels of a shard: int64 (rows,); raises as :meth:`images`."""
        return self._read("labels", shard, "int64", (self.rows(shard),), True)

    def _read(self, kind: str, shard: int, dtype: str, shape: tuple[int, ...], verify: bool) -> np.ndarray:
        file = self.file(kind, shard)
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except BROKEN_ARRAY as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(
                f"bank {self.path}: {file.name} is missing or damaged ({reason}); "
                "delete it and draw the bank again, only what is missing is drawn"
            ) from error
        held = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        if held != f"{dtype} {shape}" or not array.flags.c_contiguous:
            raise UserError(
                f"bank {self.path}: {file.name} holds {held}, the manifest says {dtype} {shape}; "
                "delete it and draw the bank again"
            )
        if verify:
            self._verify(file, array)
        return array

    def _verify(self, file: Path, array: np.ndarray) -> None:
        checksums = self.manifest.checksums
        if checksums is None:
            _say_unchecked(self.path)
        elif file not in self._verified:
            if hashlib.sha256(array.data).hexdigest() != checksums.get(file.name):
                raise UserError(
                    f"bank {self.path}: {file.name} was changed after it was written (its SHA-256 is not that of the "
                    "manifest); delete it and draw the bank again, only what is missing is drawn"
                )
            self._verified.add(file)


@functools.cache
def _say_unchecked(path: Path) -> None:
    _log.warning("bank %s has no checksums: it was written by an older version, so changed bytes go unseen", path)
