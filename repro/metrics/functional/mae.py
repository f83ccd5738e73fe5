"""MAE score: how often two images of one noise differ by little in their pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError

__all__ = ["absolute_difference_matrix", "check_mae_threshold", "mae_matches", "mae_score", "stays_below"]

_ELEMENTS = 1 << 22


def check_mae_threshold(threshold: float) -> float:
    """Checks the threshold of a mean pixel difference, and returns it as a float.

    Raises:
        UserError: outside [0, 255].
    """
    if not 0 <= float(threshold) <= 255:
        raise UserError(f"MAE threshold {threshold} is outside [0, 255], where pixels lie; the paper takes 15")
    return float(threshold)


def stays_below(difference: Tensor, threshold: float | Tensor) -> Tensor:
    """Says which mean pixel differences are strictly below a threshold: bool, shape of the differences."""
    return difference < threshold


def _as_images(value: Any, name: str) -> Tensor:
    images = torch.as_tensor(value)
    if images.ndim != 4 or images.dtype != torch.uint8 or images.numel() == 0:
        raise UserError(
            f"{name} are {images.dtype} of shape {tuple(images.shape)}; the MAE score takes uint8 images in [0, 255], "
            "shape (n, C, H, W) with n >= 1: use repro.images.to_uint8"
        )
    return images


def mae_matches(images_a: Any, images_b: Any, threshold: float = 15.0) -> Tensor:
    """Says which pairs are close: mean |a_i - b_i| over channels and pixels < threshold, strictly; bool, shape (n,).

    Args:
        images_a: Of the first model, uint8 (n, C, H, W), row i from noise i.
        images_b: Of the second model, in the same order.
        threshold: Mean difference in [0, 255].

    Raises:
        UserError: not uint8 images, different shapes, no image, or a threshold outside [0, 255].
    """
    threshold = check_mae_threshold(threshold)
    a, b = _as_images(images_a, "the first images"), _as_images(images_b, "the second images")
    if a.shape != b.shape:
        raise UserError(
            f"the first images have shape {tuple(a.shape)}, the second {tuple(b.shape)}; "
            "compare the same noises at one size"
        )
    pixels = a[0].numel()
    parts = []
    step = max(1, _ELEMENTS // pixels)
    for start in range(0, len(a), step):
        x, y = a[start : start + step], b[start : start + step].to(a.device)
        difference = torch.maximum(x, y) - torch.minimum(x, y)
        parts.append(difference.flatten(1).sum(1, dtype=torch.int64))
    return stays_below(torch.cat(parts).double() / pixels, threshold)


def mae_score(images_a: Any, images_b: Any, threshold: float = 15.0) -> float:
    r"""MAE score of two models: the share of noises whose two images differ by little; higher is more alike.

    .. math:: P\Big(\tfrac{1}{CHW} \sum_k |x_{1,k} - x_{2,k}| < \tau\Big), \qquad x \in \{0, \dots, 255\}

    The sum is an integer, so nothing is rounded before the comparison.

    Args:
        images_a: Of the first model, uint8 (n, C, H, W), row i from noise i.
        images_b: Of the second model, in the same order.
        threshold: tau in [0, 255]; strict. The paper takes 15.

    Returns:
        Rate in [0, 1].

    Raises:
        UserError: as :func:`mae_matches`.

    Source: Zhang et al. 2024 (arXiv:2310.05264), section 2.

    Example:
        >>> black = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> mae_score(black, black + torch.tensor([14, 15], dtype=torch.uint8).view(2, 1, 1, 1))
        0.5
    """
    matches = mae_matches(images_a, images_b, threshold)
    return int(matches.sum()) / len(matches)


@torch.no_grad()
def absolute_difference_matrix(images: Tensor, others: Tensor | None = None, upper: bool = False) -> Tensor:
    """Computes the mean absolute pixel difference of every system with every system on each noise, exact.

    Args:
        images: Of K systems on the same n noises, uint8, shape (n, K, D).
        others: What the second of each pair gave, in the same shape; the same images when left out.
        upper: Leave entries (i, j, k) with k < j at 0, for half the work.

    Returns:
        float64, shape (n, K, K); entry (i, j, k) compares system j with system k.
    """
    n, systems, pixels = images.shape
    whole = torch.int32 if 255 * pixels < 1 << 31 else torch.int64
    sums = torch.zeros(n, systems, systems, dtype=whole, device=images.device)
    for j in range(systems):
        first = j if upper or others is None else 0
        x, y = images[:, j : j + 1], (images if others is None else others)[:, first:]
        sums[:, j, first:] = (torch.maximum(x, y) - torch.minimum(x, y)).sum(-1, dtype=whole)
    if others is None and not upper:
        sums = sums.triu() + sums.triu(1).transpose(1, 2)
    return sums.double() / pixels
