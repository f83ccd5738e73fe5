"""Sample banks: a folder with the uint8 images of numbered noises and a manifest that says where they came from.

A bank is cut into shards of consecutive seeds. Each shard is a file that is there whole or not at all, so that an
interrupted bank goes on where it stopped and several processes may write different shards at once::

    manifest.json        format, model, sampler, kernel, task, labels, seeds, image shape, data
    images-00000000.npy  uint8 (rows, C, H, W) of the first shard's seeds
    labels-00000000.npy  int64 (rows,), conditional banks only

A bank from elsewhere is data and no more: nothing in it is executed and no path in it is followed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from repro.banks.foreign import numbered_images
from repro.banks.manifest import Manifest, format_seeds, read_manifest
from repro.banks.shards import Shards
from repro.errors import UserError
from repro.images import to_uint8

if TYPE_CHECKING:
    from repro.data.base import ImageData

__all__ = ["Bank", "check_rows"]


class Bank:
    """Images of numbered noises in memory, with their manifest.

    Attributes:
        images: uint8, shape (n, C, H, W); of a bank on the disk they are loaded once, at the first use.
        seeds: Number of each image's noise, int64, shape (n,).
        labels: Class of each image, int64, shape (n,), or None.
        manifest: The :class:`Manifest`.
        complete: False while shards are missing; the images are then those of the shards that are there.
        path: The folder, or None for a bank in memory.

    Example:
        >>> bank = Bank.from_images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), seeds=[5, 6, 7])
        >>> len(bank), bank.seeds.tolist(), bank.complete
        (3, [5, 6, 7], True)
    """

    def __init__(
        self,
        images: Tensor | None,
        manifest: Manifest,
        labels: Tensor | None = None,
        path: Path | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        self._images, self.manifest, self.labels, self.path = images, manifest, labels, path
        self._files = Shards(path or Path(), manifest)
        self._shards = list(range(self._files.count)) if shards is None else list(shards)
        self.complete = len(self._shards) == self._files.count
        seeds = [seed for shard in self._shards for seed in self._files.seeds(shard)]
        self.seeds = torch.tensor(seeds, dtype=torch.int64).repeat_interleave(manifest.images_per_seed)

    @classmethod
    def from_images(
        cls, images: Tensor, seeds: Iterable[int] | None = None, labels: Tensor | None = None, **manifest: Any
    ) -> Bank:
        """Makes a bank in memory of uint8 images and their seeds.

        Args:
            images: uint8, shape (n, C, H, W).
            seeds: Number of each image, 0 .. n - 1 when left out.
            labels: Class of each image, or None.
            **manifest: More keys of the :class:`Manifest`.
        """
        seeds = list(range(len(images))) if seeds is None else [int(seed) for seed in seeds]
        record = Manifest(seeds=seeds, image_shape=tuple(images.shape[1:]), **manifest)
        check_rows(record, seeds, images, labels)
        return cls(images, record, labels)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bank:
        """Opens the bank in a folder, checked against its manifest; its images are read when they are first used.

        Raises:
            UserError: no bank there, no image yet, or a damaged file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        layout = Shards(path, manifest)
        shards = layout.present(manifest.checksums)
        if not shards:
            raise UserError(f"bank {path} holds no image yet; continue it with repro predict")
        for shard in shards:
            layout.images(shard, verify=False)
        labels = None
        if manifest.labels is not None:
            parts = [layout.labels(shard) for shard in shards]
            labels = torch.from_numpy(np.concatenate(parts))
            if int(labels.min()) < 0 or int(labels.max()) >= manifest.num_classes:
                raise UserError(
                    f"bank {path}: labels run from {int(labels.min())} to {int(labels.max())}, "
                    f"the manifest says {manifest.num_classes} classes"
                )
        return cls(None, manifest, labels, path, shards)

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str]) -> Bank:
        """Makes a bank in memory of samples that others released; see :func:`repro.banks.foreign.numbered_images`.

        Raises:
            UserError: nothing there, no image, images of several sizes, a broken file.
        """
        images, seeds, by = numbered_images(path)
        return cls.from_images(images, seeds, source=f"{path} (numbered by {by})")

    @property
    def images(self) -> Tensor:
        """All images of the bank, uint8 (n, C, H, W)."""
        if self._images is None:
            images = torch.empty(len(self.seeds), *self.manifest.image_shape, dtype=torch.uint8)
            start = 0
            for shard in self._shards:
                part = self._files.images(shard)
                images.numpy()[start : start + len(part)] = part
                start += len(part)
            self._images = images
        return self._images

    def read(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Reads some images by their row, uint8 (k, C, H, W), opening only the files that they lie in."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._images is not None:
            return self._images[torch.from_numpy(rows)]
        images: np.ndarray = np.empty((len(rows), *self.manifest.image_shape), dtype=np.uint8)
        places, inside = np.divmod(rows, self.manifest.shard_size * self.manifest.images_per_seed)
        for shard in np.unique(places):
            chosen = places == shard
            images[chosen] = self._files.images(self._shards[shard])[inside[chosen]]
        return torch.from_numpy(images)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the images themselves, their seeds and labels: equal only for equal content."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.seeds, self.labels):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """Name of the folder, or of the model, or ``bank``."""
        if self.path is not None:
            return self.path.resolve().name
        return (self.manifest.model or {}).get("name", "bank")

    def training_data(self) -> ImageData | None:
        """Returns the data set that the model was trained on; None when the manifest does not say.

        Raises:
            UserError: the manifest names data that are not read unasked (:func:`repro.data.recorded.recorded_data`).
        """
        from repro.data.recorded import recorded_data  # not at the top: it imports Lightning

        data = self.manifest.data
        return None if data is None else recorded_data(data, f"bank {self.path or self.name}")

    def training_images(self) -> Tensor | None:
        """All images that the model was shown, mirrored copies included, uint8 (N, C, H, W); None when the manifest
        does not say.

        Raises:
            UserError: as :meth:`training_data`, or the images are others than those the model was trained on.
        """
        if self.training_data() is None:
            return None
        return _shown(json.dumps(self.manifest.data, sort_keys=True), self.manifest.data_fingerprint)

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        size = "x".join(str(size) for size in self.manifest.image_shape)
        state = "" if self.complete else f" of {len(self.manifest.seeds) * self.manifest.images_per_seed}"
        seeds = format_seeds(self.manifest.seeds)[:40]
        return f"Bank({self.name!r}, {len(self)}{state} images of {size}, seeds {seeds})"

    def select(self, seeds: Sequence[int]) -> Bank:
        """Makes a bank in memory of some seeds only, in the given order.

        Raises:
            UserError: a seed that the bank does not hold.
        """
        row_of = {seed: row for row, seed in enumerate(self.seeds[:: self.manifest.images_per_seed].tolist())}
        for seed in seeds:
            if seed not in row_of:
                raise UserError(
                    f"bank {self.path or self.name} has no seed {seed}; it holds {format_seeds(list(row_of))[:60]}"
                )
        each = self.manifest.images_per_seed
        rows = torch.tensor([row_of[seed] * each + image for seed in seeds for image in range(each)], dtype=torch.int64)
        labels = None if self.labels is None else self.labels[rows]
        chosen = Bank(self.images[rows], replace(self.manifest, seeds=list(seeds)), labels)
        chosen.path = self.path
        return chosen


@functools.lru_cache(maxsize=4)
def _shown(record: str, fingerprint: str) -> Tensor:
    from repro.data.recorded import recorded_data

    data = recorded_data(json.loads(record), "the bank")
    if fingerprint and data.fingerprint() != fingerprint:
        raise UserError(
            f"the images of {data!r} are not those that the model was trained on any more; name the right ones with "
            "--train"
        )
    return to_uint8(data.shown()[0])


def check_rows(manifest: Manifest, seeds: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
    """Raises a UserError unless images and labels are what a manifest says of these seeds."""
    expected = (len(seeds) * manifest.images_per_seed, *manifest.image_shape)
    if images.dtype != torch.uint8:
        raise UserError(f"images of a bank are uint8, these are {images.dtype}; convert with repro.images.to_uint8")
    if tuple(images.shape) != expected:
        raise UserError(f"images have shape {tuple(images.shape)}; {len(seeds)} seeds of this bank make {expected}")
    if (labels is None) != (manifest.labels is None):
        raise UserError("give labels exactly when the manifest has them: labels={'num_classes': ...}")
    if labels is not None and (
        tuple(labels.shape) != expected[:1] or int(labels.min()) < 0 or int(labels.max()) >= manifest.num_classes
    ):
        raise UserError(f"labels must be {expected[0]} integers from 0 to {manifest.num_classes - 1}")
