"""Descriptors: images to unit vectors whose inner product says how alike two images are."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from repro.data.progress import slow_progress
from repro.descriptors.domain import Domain
from repro.errors import UserError
from repro.files import write_whole
from repro.records import record_of
from repro.registry import Plugin

__all__ = ["PAPER_THRESHOLD", "Descriptor", "cached_features", "features_of_bank"]

PAPER_THRESHOLD = 0.6
_log = logging.getLogger(__name__)


class Descriptor(Plugin):
    """Maps images to unit vectors; two images are copies of each other when the inner product exceeds a threshold.

    A subclass takes plain constructor arguments and defines :meth:`describe`. It is not an ``nn.Module``: a network
    inside it never becomes part of a model's parameters, state dict or average.

    Attributes:
        cheap: Whether computing features again costs less than storing them.
        batch_size: Images a batch when the caller does not say.
        channels: Numbers of channels that images may have; empty for any.
    """

    cheap: ClassVar[bool] = False
    batch_size: ClassVar[int] = 256
    channels: ClassVar[tuple[int, ...]] = ()

    @property
    def default_threshold(self) -> float:
        """Similarity above which two images count as the same, in [-1, 1]; strict."""
        return PAPER_THRESHOLD

    @property
    def domain(self) -> Domain | None:
        """What images the threshold was chosen on; None where nothing is known."""
        return None

    @property
    def name(self) -> str:
        """Name for tables and records: the class, with what distinguishes this instance."""
        return type(self).__name__

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything the features depend on; here the registry record."""
        return hashlib.sha256(json.dumps(record_of(self), sort_keys=True).encode()).hexdigest()

    def warning(self, images: Tensor) -> str | None:
        """Returns one line where images are of another kind than the descriptor was made for; None where they are not.

        Args:
            images: uint8, shape (n, C, H, W).
        """
        domain = self.domain
        misfit = None if domain is None else domain.misfit(images)
        if domain is None or misfit is None:
            return None
        return (
            f"{self.name} was made for {domain.text}; {misfit}: similarities may mean something else here, read "
            "them beside their chance levels"
        )

    def check(self, images: Tensor) -> None:
        """Raises a UserError for images that this descriptor does not take; reads no weights.

        Args:
            images: What should be uint8, shape (n, C, H, W), with a number of channels that it takes.
        """
        check_images(images)
        self.check_shape(tuple(images.shape[1:]))

    def check_shape(self, image_shape: tuple[int, ...]) -> None:
        """Raises a UserError for images of a shape (C, H, W) that this descriptor does not take; reads no weights."""
        if self.channels and image_shape[0] not in self.channels:
            legal = " or ".join(map(str, self.channels))
            raise UserError(f"images have {image_shape[0]} channels; {type(self).__name__} takes {legal}")

    @abstractmethod
    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Vectors of one batch, of any length: uint8 (n, C, H, W) on the CPU to floating (n, d) on any device."""

    @torch.no_grad()
    def features(
        self, images: Tensor, batch_size: int | None = None, device: str | torch.device = "cpu", title: str = ""
    ) -> Tensor:
        """Computes the unit vectors of images.

        Args:
            images: uint8 in [0, 255], shape (n, C, H, W).
            batch_size: Images a batch.
            device: Where the network runs.
            title: Shown beside the progress bar, which appears when it takes over two seconds.

        Returns:
            float32 on the CPU, shape (n, d); rows have length 1, or 0 where the descriptor finds nothing in an image
            (its similarity to everything is then 0).

        Raises:
            UserError: images that are not uint8 (n, C, H, W), none, or of other channels than it takes.
        """
        self.check(images)
        size = batch_size or self.batch_size
        parts = []
        with slow_progress(f"{self.name} {title}".strip(), len(images)) as done:
            for start in range(0, len(images), size):
                vectors = self.describe(images[start : start + size], torch.device(device)).to(torch.float64)
                length = vectors.norm(dim=1, keepdim=True)
                parts.append(torch.where(length > 0, vectors / length, 0.0).to("cpu", torch.float32))
                done(min(start + size, len(images)))
        return torch.cat(parts)

    def __call__(self, images: Tensor, device: str | torch.device = "cpu") -> Tensor:
        """Features of uint8 images; see :meth:`features`."""
        return self.features(images, device=device)


def check_images(images: Tensor) -> None:
    """Raises a UserError unless these are at least one image as uint8 (n, C, H, W)."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.uint8:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"images are {got}; scores take uint8 in [0, 255] of shape (n, C, H, W): use repro.images.to_uint8"
        )
    if images.numel() == 0:
        raise UserError(f"images have shape {tuple(images.shape)}; there is none to describe")


class _Images(Protocol):
    path: Path | None

    @property
    def images(self) -> Tensor: ...

    @property
    def fingerprint(self) -> str: ...


def features_of_bank(
    bank: _Images, descriptor: Descriptor, batch_size: int | None = None, device: str | torch.device = "cpu"
) -> Tensor:
    """Computes features of a bank, computed once for each (bank, descriptor) and kept in the bank's folder.

    Returns:
        float32 on the CPU, shape (n, d).
    """
    if bank.path is None or descriptor.cheap:
        return descriptor.features(bank.images, batch_size, device)
    return cached_features(bank.images, bank.fingerprint, descriptor, bank.path, batch_size, device)


def cached_features(
    images: Tensor,
    fingerprint: str,
    descriptor: Descriptor,
    folder: str | os.PathLike[str],
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Reads features of images from a folder's cache, or computes them and puts them there.

    A file of the cache is believed only when it names the same images and the same descriptor and its checksum
    holds; otherwise it is written again. A folder that cannot be written only costs the reuse.

    Args:
        images: uint8, shape (n, C, H, W).
        fingerprint: Hash of the images' content.
        descriptor: The descriptor.
        folder: Folder of the cache; it must exist.
        batch_size: Images a batch.
        device: Where the network runs.
    """
    descriptor.check(images)
    identity = {"images": fingerprint, "descriptor": descriptor.fingerprint}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(folder) / f"features-{type(descriptor).__name__}-{key}.safetensors"
    stored = _read(path, identity, len(images))
    if stored is not None:
        return stored
    features = descriptor.features(images, batch_size, device)
    from safetensors.torch import save

    try:
        with write_whole(path) as file:
            file.write(save({"features": features}, identity | {"sha256": _digest(features)}))
    except UserError as error:
        _log.warning("features are not kept: %s", error)
    return features


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().data).hexdigest()


def _read(path: Path, identity: dict[str, str], rows: int) -> Tensor | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            features = file.get_tensor("features")
    except (SafetensorError, OSError):
        return None
    same = all(metadata.get(key) == value for key, value in identity.items())
    whole = features.dtype == torch.float32 and features.ndim == 2 and len(features) == rows
    return features if same and whole and metadata.get("sha256") == _digest(features) else None
