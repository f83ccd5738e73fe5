"""Distances between two sets of samples, in any features: the formulas of FID and KID."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.similarity import as_features

__all__ = ["frechet_distance", "kernel_distance"]


def two_sets(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Returns features of two sets in float64.

    Raises:
        UserError: as :func:`~repro.metrics.functional.similarity.as_features`, different feature sizes, or fewer than
            two samples in a set.
    """
    x, y = as_features(a, "the first features").double(), as_features(b, "the second features").double()
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"the first features have size {x.shape[1]}, the second {y.shape[1]}; use one descriptor for both"
        )
    if min(len(x), len(y)) < 2:
        raise UserError(f"sets of {len(x)} and {len(y)} samples have no covariance; give at least 2 samples each")
    return x, y.to(x.device)


@torch.no_grad()
def frechet_distance(a: Any, b: Any) -> float:
    r"""Fréchet distance of the Gaussians with the two sets' means and covariances; 0 for equal ones, lower is closer.

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}\,\Sigma_1 + \mathrm{tr}\,\Sigma_2
              - 2\,\mathrm{tr}\,(\Sigma_1 \Sigma_2)^{1/2}

    On Inception features this is FID. The last trace is the sum of the singular values of :math:`R_1 R_2^T`, where
    :math:`\Sigma_i = R_i^T R_i` comes from the QR decomposition of the centred samples: no matrix root is taken, so
    fewer samples than features do no harm to its precision. Covariances divide by n - 1.

    Args:
        a: Floating (n, d) features of the first set, n at least 2; or uint8 (n, C, H, W) images.
        b: Of the second set, (m, d).

    Raises:
        UserError: fewer than two samples, different feature sizes, or values that are not finite.

    Source: Heusel et al. 2017 (arXiv:1706.08500), equation 6.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3)
        9.0
    """
    x, y = two_sets(a, b)
    roots = []
    for features in (x, y):
        centred = features - features.mean(0)
        roots.append(torch.linalg.qr(centred, mode="r").R / (len(features) - 1) ** 0.5)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    spread = sum(root.square().sum() for root in roots)
    return max(0.0, float(shift + spread - 2 * shared))


@torch.no_grad()
def kernel_distance(a: Any, b: Any, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    r"""Squared maximum mean discrepancy under the kernel :math:`(\langle x, y \rangle / d + 1)^3`, without bias.

    On Inception features this is KID. It is the mean over random subsets, which are numbered: the same sets give the
    same value. It can be slightly negative for sets that are equal.

    Args:
        a: Floating (n, d) features of the first set, n at least 2; or uint8 (n, C, H, W) images.
        b: Of the second set, (m, d).
        subsets: How many subsets.
        subset_size: Samples in each; all of the smaller set when it has fewer.
        seed: Number of the subsets' draw.

    Raises:
        UserError: fewer than two samples, different feature sizes, values that are not finite, or sizes below 1 and 2.

    Source: Bińkowski et al. 2018 (arXiv:1801.01401), section 4.
    """
    from torchmetrics.image.kid import poly_mmd

    if subsets < 1 or subset_size < 2:
        raise UserError(f"{subsets} subsets of {subset_size} samples; give at least 1 of at least 2")
    x, y = two_sets(a, b)
    size = min(subset_size, len(x), len(y))
    if size == len(x) == len(y):
        return float(poly_mmd(x, y))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        rows = [torch.randperm(len(features), generator=generator)[:size].to(x.device) for features in (x, y)]
        values.append(float(poly_mmd(x[rows[0]], y[rows[1]])))
    return sum(values) / subsets
