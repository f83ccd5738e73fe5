"""The pixels themselves as a descriptor."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from repro.descriptors.base import Descriptor
from repro.devices import onto

__all__ = ["Pixels"]


class Pixels(Descriptor):
    r"""Flattened pixels, minus their own mean, at unit length: the similarity is the centred cosine.

    .. math:: M(x, y) = \frac{\langle x - \bar x, y - \bar y \rangle}{|x - \bar x| \, |y - \bar y|}

    Needs no weights and sees no semantics: it fits small grey images of one subject, where a threshold of 0.8 says
    "the same drawing". An image of one colour throughout has no direction; its vector is zero and its similarity to
    every image, itself included, is 0.

    Args:
        center: Subtract the mean over all pixels and channels of the image; False gives the plain cosine.

    Example:
        >>> a = torch.tensor([[[[0, 10], [20, 30]]]], dtype=torch.uint8)
        >>> float(Pixels().features(a) @ Pixels().features(a + 100).T)
        1.0
    """

    default_threshold = 0.8
    cheap: ClassVar[bool] = True
    batch_size: ClassVar[int] = 1024

    def __init__(self, center: bool = True) -> None:
        self.center = center

    @property
    def name(self) -> str:
        """``Pixels``, or ``Pixels(center=False)``."""
        return "Pixels" if self.center else "Pixels(center=False)"

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Centred pixels, shape (n, C * H * W), float64 (exact: n times the pixel minus the sum, in integers)."""
        pixels = onto(device, images).flatten(1).to(torch.float64)
        if self.center:
            pixels = pixels * pixels.shape[1] - pixels.sum(1, keepdim=True)
        return pixels
