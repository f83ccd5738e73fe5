"""Decoded images kept on disk between runs: whole or not at all, and checked when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro.errors import UserError
from repro.files import BROKEN_ARRAY, cache_folder, read_json, write_text, write_whole

__all__ = ["DecodedCache", "Listing"]

_FORMAT = 2


@dataclass(frozen=True)
class Listing:
    """What is known of a set before its images are decoded.

    Attributes:
        names: Relative names of the images, sorted.
        image_shape: (C, H, W).
        labels: Class of each image from a label file, or None.
        changes: What is done to images before they are pixels, as a viewer does it: how many of them, and one name.
    """

    names: list[str]
    image_shape: tuple[int, int, int]
    labels: list[int] | None
    changes: dict[str, tuple[int, str]] = field(default_factory=dict)


class DecodedCache:
    """The images of one set, decoded one way, in ``$REPRO_CACHE`` (or ``~/.cache/repro``) under ``decoded``.

    An entry is an ``.npy`` file and a ``.json`` beside it that was written after it and holds its checksum; an entry
    that does not match is as good as none.

    Args:
        key: Names the set and how it is decoded.
    """

    def __init__(self, key: str) -> None:
        self.key = hashlib.sha256(f"{_FORMAT} {key}".encode()).hexdigest()[:32]

    def _paths(self) -> tuple[Path, Path]:
        folder = cache_folder("decoded")
        return folder / f"{self.key}.npy", folder / f"{self.key}.json"

    def load(self) -> tuple[Listing, NDArray[np.uint8]] | None:
        """Reads the listing and maps the images, uint8 (n, C, H, W); None when there is no sound entry."""
        try:
            array_path, record_path = self._paths()
            record = read_json(record_path, "record", 2**30)
            images = np.load(array_path, mmap_mode="c", allow_pickle=False)
            changes = {kind: (int(count), str(name)) for kind, (count, name) in record["changes"].items()}
            listing = Listing(record["names"], tuple(record["image_shape"]), record["labels"], changes)
            expected = (len(listing.names), *listing.image_shape)
            sound = images.shape == expected and images.dtype == np.uint8
            sound = sound and _checksum(images, listing) == record["sha256"]
        except (*BROKEN_ARRAY, AttributeError):
            return None
        return (listing, images) if sound else None

    def save(self, listing: Listing, images: NDArray[np.uint8]) -> None:
        """Keeps an entry; a full or read-only disk is no error, the next run decodes again."""
        try:
            array_path, record_path = self._paths()
            with write_whole(array_path) as file:
                np.save(file, images, allow_pickle=False)
            write_text(record_path, json.dumps(asdict(listing) | {"sha256": _checksum(images, listing)}))
        except UserError:
            return

    def was_checked(self, indices: NDArray[np.int64]) -> bool:
        """Says whether these images were all decoded once without an error; their files have not changed since."""
        return self._mark(indices, make=False).is_file()

    def mark_checked(self, indices: NDArray[np.int64]) -> None:
        """Keeps in mind that these images can all be decoded; a disk that cannot be written is no error."""
        with contextlib.suppress(UserError):
            write_text(self._mark(indices, make=True), "")

    def _mark(self, indices: NDArray[np.int64], make: bool) -> Path:
        which = hashlib.sha256(f"{self.key} {len(indices)}".encode() + indices.tobytes()).hexdigest()
        return cache_folder("checked", make=make) / which


def _checksum(images: NDArray[np.uint8], listing: Listing) -> str:
    digest = hashlib.sha256(json.dumps(asdict(listing), sort_keys=True).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
