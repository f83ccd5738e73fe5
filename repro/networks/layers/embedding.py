"""Embeddings of the noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sinusoidal"]


def sinusoidal(values: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    r"""Sinusoidal embedding of numbers: cosines first, then sines.

    .. math:: [\cos(v\,\omega_k)]_k,\ [\sin(v\,\omega_k)]_k, \qquad \omega_k = P^{-k / h},\quad k = 0 .. h - 1

    Args:
        values: Shape (B,); float64 stays float64, everything else is computed in float32.
        width: Number of channels, ``2 h``; an odd width gets a zero at its end.
        max_period: :math:`P > 1`.

    Returns:
        Shape (B, width).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; in this order in the diffusion transformers.

    Example:
        >>> sinusoidal(torch.zeros(1), 5).tolist()
        [[1.0, 1.0, 0.0, 0.0, 0.0]]
    """
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=dtype, device=values.device) * (-math.log(max_period) / half))
    angles = values.to(dtype)[:, None] * rates
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width % 2))
