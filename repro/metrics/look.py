"""What a metric looks at: features as they are, or images through its descriptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.descriptors.base import Descriptor
from repro.errors import UserError
from repro.registry import build

__all__ = ["Look"]


@dataclass(frozen=True)
class Look:
    """Turns the images or features that ``update`` is called with into what a metric compares.

    Args:
        descriptor: Gives the features of images; None leaves images to the metric, which takes ``Pixels``.
        normalize: Whether float images in [0, 1] are taken, as torchmetrics says it; they are rounded to uint8.
    """

    descriptor: Descriptor | None = None
    normalize: bool = False

    @classmethod
    def of(cls, descriptor: Descriptor | str | None, normalize: bool) -> Look:
        """Makes a look from a descriptor or its registered name."""
        return cls(build("descriptors", descriptor) if isinstance(descriptor, str) else descriptor, bool(normalize))

    def __deepcopy__(self, memo: dict[int, Any]) -> Look:
        """Itself: copies of a metric share its descriptor's network."""
        return self

    def images(self, value: Any) -> Any:
        """Turns float images in [0, 1] into uint8 where the metric takes them; leaves everything else as it is.

        Raises:
            UserError: a float image outside [0, 1].
        """
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self.images(item) for item in value]
        if not (self.normalize and isinstance(value, Tensor) and value.ndim >= 4 and value.is_floating_point()):
            return value
        low, high = float(value.min()), float(value.max())
        if not (low >= 0 and high <= 1):
            raise UserError(f"images run from {low:g} to {high:g}; with normalize=True give floats in [0, 1]")
        return value.mul(255).round().to(torch.uint8)

    def features(self, value: Any, device: torch.device) -> Any:
        """Computes features of images, (n, d) or (n, k, d), where there is a descriptor; everything else as it is."""
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self.features(item, device) for item in value]
        images = self.images(value)
        if self.descriptor is None or not isinstance(images, Tensor) or images.dtype != torch.uint8:
            return images
        if images.ndim == 5:
            return self.features(images.flatten(0, 1), device).unflatten(0, images.shape[:2])
        return self.descriptor.features(images, device=device)
