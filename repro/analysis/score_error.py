r"""How far a denoiser's predicted noise is from another's, the exact one's above all (paper, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from repro.denoisers import Denoiser, UnderKernel
from repro.kernels import Kernel

__all__ = ["RatioError", "score_error", "score_error_by_ratio", "seen_under"]


def seen_under(denoiser: Denoiser, kernel: Kernel) -> Denoiser:
    """Sees a denoiser through a kernel; returns it unchanged when the kernel is its own."""
    return denoiser if denoiser.kernel is kernel else UnderKernel(denoiser, kernel)


@torch.no_grad()
def score_error(
    first: Denoiser,
    second: Denoiser,
    x_0: Tensor,
    eps: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    kernel: Kernel | None = None,
) -> Tensor:
    r""":math:`\|\hat\epsilon_1(x_t, t) - \hat\epsilon_2(x_t, t)\|^2` of each image, under one kernel, in float64.

    Its mean over samples of the distribution, times and noises is the score error of the paper.

    Args:
        first: A denoiser.
        second: Another one; both are looked at through the same kernel.
        x_0: Clean images, (B, C, H, W).
        eps: Unit normal noise of the same shape.
        t: Times, () or (B,).
        labels: Classes (B,), or None.
        kernel: Gives ``x_t`` and the meaning of ``t``; the second one's by default.

    Returns:
        Squared norms over the values of an image, float64 (B,).

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import EDM
        >>> wide, narrow = GaussianDenoiser(EDM(), (1, 1, 1), std=1.0), GaussianDenoiser(EDM(), (1, 1, 1), std=1e-9)
        >>> x_0, eps = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        >>> score_error(wide, narrow, x_0, eps, torch.tensor(1.0)).item()
        0.25
    """
    kernel = kernel or second.kernel
    pair = [seen_under(each, kernel) for each in (first, second)]
    x_0, eps = x_0.double(), eps.double()
    alpha, sigma = pair[0].scales(x_0, t)
    x_t = alpha * x_0 + sigma * eps
    one, other = (each.eps(x_t, t, labels) for each in pair)
    return (one - other).square().flatten(1).sum(1)


class RatioError(NamedTuple):
    r"""Score error at one noise level.

    Attributes:
        ratio: :math:`\sigma_t / \alpha_t`.
        mean: Mean of :func:`score_error` over the images.
        standard_error: Of the mean.
    """

    ratio: float
    mean: float
    standard_error: float


def score_error_by_ratio(
    first: Denoiser,
    second: Denoiser,
    x_0: Tensor,
    eps: Tensor,
    ratios: Sequence[float],
    labels: Tensor | None = None,
    batch_size: int = 1000,
) -> list[RatioError]:
    """Computes the score error at several noise levels, at the same images and noises.

    Args:
        first: A denoiser.
        second: Another one, whose kernel is used.
        x_0: Clean images, at least 2, (M, C, H, W).
        eps: Unit normal noise of the same shape.
        ratios: The noise levels.
        labels: Classes (M,), or None.
        batch_size: Images at a time.
    """
    levels = []
    for ratio in ratios:
        t = second.kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
        errors = torch.cat(
            [
                score_error(first, second, x_0[i : i + batch_size], eps[i : i + batch_size], t, classes)
                for i in range(0, len(x_0), batch_size)
                for classes in [None if labels is None else labels[i : i + batch_size]]
            ]
        )
        levels.append(RatioError(float(ratio), errors.mean().item(), errors.std().item() / len(errors) ** 0.5))
    return levels
