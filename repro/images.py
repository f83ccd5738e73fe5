"""Pixel conventions: float images live in [-1, 1], stored and scored images are uint8."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.errors import UserError

__all__ = ["check_range", "to_float", "to_uint8", "viewable"]


_Images = TypeVar("_Images", Tensor, NDArray)


def viewable(images: _Images) -> _Images:
    """The channels of images (..., C, H, W) that a picture shows: 1 or 3 as they are, of others the first, or first 3.

    Example:
        >>> viewable(torch.zeros(2, 5, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """
    return images[..., : 3 if images.shape[-3] >= 3 else 1, :, :]


def check_range(images: Tensor) -> None:
    """Refuses float images beyond [-1, 1], the range that models are trained on, and warns of those within [0, 1].

    Raises:
        UserError: values beyond [-1, 1].

    Example:
        >>> check_range(torch.tensor([-1.0, 0.5]))
    """
    if not images.is_floating_point():
        return
    low, high = images.min().item(), images.max().item()
    if not (low >= -1.01 and high <= 1.01):  # resizing and noise overshoot a little
        raise UserError(
            f"training images are floats from {low:.3g} to {high:.3g}; give uint8 in [0, 255], or floats in [-1, 1]"
        )
    if low >= 0 and high > low:
        warnings.warn(
            f"training images are floats from {low:.3g} to {high:.3g}, as if in [0, 1]; models are trained on [-1, 1]: "
            "give uint8 in [0, 255], or 2 x - 1",
            stacklevel=3,
        )


def to_uint8(images: Tensor) -> Tensor:
    """Turns float images in [-1, 1] into uint8 in [0, 255], rounded to nearest and clipped; uint8 stays.

    Example:
        >>> to_uint8(torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0])).tolist()
        [0, 0, 128, 255, 255]
    """
    if images.dtype == torch.uint8:
        return images
    return images.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turns uint8 images in [0, 255] into floats in [-1, 1], the inverse of :func:`to_uint8`; floats stay.

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    if images.is_floating_point():
        return images
    return images.to(dtype).div_(127.5).sub_(1)
