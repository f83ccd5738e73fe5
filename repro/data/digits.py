"""Handwritten digits that come with scikit-learn: the default data, no download."""

from __future__ import annotations

import torch

from repro.data.base import ImageData
from repro.data.source import ArraySource

__all__ = ["Digits"]


class Digits(ImageData):
    """1,797 handwritten digits of 8x8 grey pixels in 10 classes, embedded in scikit-learn; needs no download.

    The values 0..16 are scaled to 0..255 and rounded. Its arguments are those of every data set.

    Source: Alpaydin & Kaynak 1998, *Optical recognition of handwritten digits* (test part), UCI repository.

    Example:
        >>> Digits(subset=64).image_shape
        (1, 8, 8)
    """

    reaches_out = False

    def open_source(self) -> ArraySource:
        """Reads scikit-learn's file."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
        return ArraySource(images[:, None], digits.target, [str(name) for name in digits.target_names])
