r"""The formulas of consistency models: how many noise levels and how slow a target, distances, and weights.

A consistency model is trained on pairs of neighbouring noise levels out of N. Training on data alone starts with few
and coarse ones, and lets the target network follow more slowly the finer they are.

Source of all but ``pseudo_huber``: Song et al. 2023, arXiv:2303.01469, appendix C.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from repro.errors import check_choice

__all__ = ["Distance", "Weighting", "adaptive_decay", "distance", "progressive_levels", "weight"]

Distance = Literal["l2", "l1", "pseudo_huber"]
Weighting = Literal["uniform", "snr", "snr_plus_one", "karras", "truncated_snr"]

_HUBER = 0.00054


def progressive_levels(step: int, first: int, last: int, steps: int) -> int:
    r"""Computes the number N(k) of noise levels at optimiser step k, from :math:`s_0` to :math:`s_1 + 1` of them.

    .. math:: N(k) = \Big\lceil \sqrt{\tfrac kK \big((s_1 + 1)^2 - s_0^2\big) + s_0^2} - 1 \Big\rceil + 1

    Args:
        step: k; after K the number stays.
        first: :math:`s_0`.
        last: :math:`s_1`.
        steps: K.

    Example:
        >>> [progressive_levels(k, 2, 150, 800_000) for k in (0, 1, 400_000, 800_000)]
        [2, 3, 107, 151]
    """
    squared = min(step, steps) / steps * ((last + 1) ** 2 - first**2) + first**2
    return max(math.ceil(math.sqrt(squared) - 1), 1) + 1


def adaptive_decay(decay: float, first: int, levels: int) -> float:
    r"""Says how much of the target network stays in a step under N levels: :math:`\exp(s_0 \log \mu_0 / (N - 1))`.

    Args:
        decay: :math:`\mu_0`, in [0, 1).
        first: :math:`s_0`.
        levels: N.
    """
    return decay ** (first / (levels - 1))


def distance(one: Tensor, other: Tensor, name: Distance = "l2") -> Tensor:
    r"""Computes the distance of each image from another, shape (B,).

    With :math:`d` the number of values of an image, ``l2`` is :math:`\|x - y\|^2 / d`, ``l1`` :math:`\|x - y\|_1 / d`,
    and ``pseudo_huber`` :math:`\big(\sqrt{\|x - y\|^2 + c^2} - c\big) / \sqrt d` with :math:`c = 0.00054 \sqrt d` (Song
    & Dhariwal 2023, arXiv:2310.14189, section 3.3, divided by :math:`\sqrt d` so that the size of an image does not
    matter).

    Raises:
        UserError: unknown distance.
    """
    check_choice("distance", name, Distance)
    apart = (one - other).flatten(1)
    if name == "l1":
        return apart.abs().mean(1)
    squares = apart.square().mean(1)
    return squares if name == "l2" else (squares + _HUBER**2).sqrt() - _HUBER


def weight(ratio: Tensor, name: Weighting = "uniform", sigma_data: float = 0.5) -> Tensor:
    r"""Computes the weight of the distance at a noise level r: 1, :math:`r^{-2}`, :math:`r^{-2} + 1`,
    :math:`r^{-2} + \sigma_d^{-2}` or :math:`\max(r^{-2}, 1)`.

    Args:
        ratio: r, the larger of the pair, any shape.
        name: ``uniform``, ``snr``, ``snr_plus_one``, ``karras`` or ``truncated_snr``, in this order.
        sigma_data: :math:`\sigma_d`.

    Raises:
        UserError: unknown weighting.
    """
    check_choice("weighting", name, Weighting)
    snr = ratio**-2
    return {
        "uniform": torch.ones_like(snr),
        "snr": snr,
        "snr_plus_one": snr + 1,
        "karras": snr + sigma_data**-2,
        "truncated_snr": snr.clamp(min=1),
    }[name]
