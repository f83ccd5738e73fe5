"""Pixel conventions: float images live in [-1, 1], stored and scored images are uint8."""

from __future__ import annotations

from typing import TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["to_float", "to_uint8", "viewable"]


_Images = TypeVar("_Images", Tensor, NDArray)


def viewable(images: _Images) -> _Images:
    """The channels of images (..., C, H, W) that a picture shows: 1 or 3 as they are, of others the first, or first 3.

    Example:
        >>> viewable(torch.zeros(2, 5, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """
    return images[..., : 3 if images.shape[-3] >= 3 else 1, :, :]


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [-1, 1] to uint8 in [0, 255]: rounded to nearest (not truncated) and clipped; uint8 stays.

    Example:
        >>> to_uint8(torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0])).tolist()
        [0, 0, 128, 255, 255]
    """
    if images.dtype == torch.uint8:
        return images
    return images.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of uint8 in [0, 255] to floats in [-1, 1]: inverse of :func:`to_uint8` on its values; floats stay.

    Example:
        >>> to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    if images.is_floating_point():
        return images
    return images.to(dtype).div_(127.5).sub_(1)
