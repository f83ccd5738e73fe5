r"""A known distribution of images: an equal mixture of Gaussians, each on a random plane of low dimension.

.. math:: x_0 \sim \frac1K \sum_k N(0, U_k U_k^T), \qquad U_k \in R^{n \times d} \text{ with orthonormal columns}

Its denoiser has a closed form, :class:`repro.denoisers.LowRankMixtureDenoiser`; its samples are
:class:`repro.data.mixture.LowRankMixture`. Both make the same planes from the same plain numbers.

Source: Zhang et al. 2024, arXiv:2310.05264, eq. 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from repro.errors import UserError

__all__ = ["mixture_bases"]


def mixture_bases(image_shape: Sequence[int], components: int, rank: int, seed: int) -> Tensor:
    """The orthonormal bases of the planes, uniformly distributed over directions.

    Args:
        image_shape: (C, H, W), n = C H W pixels.
        components: K, how many planes.
        rank: d, their dimension, at most n.
        seed: Number of the draw.

    Returns:
        float64 (K, n, d), on the CPU.

    Raises:
        UserError: no component, or a rank that is not from 1 to n.

    Example:
        >>> basis = mixture_bases((3, 4, 4), 2, 7, seed=0)[1]
        >>> torch.allclose(basis.T @ basis, torch.eye(7, dtype=torch.float64))
        True
    """
    pixels = math.prod(image_shape)
    if components < 1:
        raise UserError(f"components is {components}; give at least 1")
    if not 1 <= rank <= pixels:
        raise UserError(f"rank is {rank}; images of {pixels} values take a rank from 1 to {pixels}")
    generator = torch.Generator().manual_seed(seed)
    bases, triangles = torch.linalg.qr(torch.randn(components, pixels, rank, generator=generator, dtype=torch.float64))
    return bases * triangles.diagonal(dim1=1, dim2=2).sign()[:, None]
