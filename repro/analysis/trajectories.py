"""What a sampler takes for the image on its way from the noise, at noise levels that all systems have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.errors import UserError
from repro.kernels import Kernel
from repro.noise import NoiseStream
from repro.samplers import Sampler

__all__ = ["denoised_along"]


@torch.no_grad()
def denoised_along(denoiser: Denoiser, sampler: Sampler, seeds: Sequence[int], ratios: Sequence[float]) -> Tensor:
    r"""Computes the denoised images at given noise levels of the sampler's walk, shape (levels, B, C, H, W).

    Between two steps :math:`x_t / \alpha_t` follows the cubic over the noise level :math:`r = \sigma_t / \alpha_t`
    that has the states and the predicted noises, its slopes, of both; it is denoised there. So walks of different
    kernels and samplers can be compared level by level. At level 0 it is the image that the sampler draws.

    Args:
        denoiser: The denoiser.
        sampler: A deterministic one.
        seeds: Numbers of the noises.
        ratios: Noise levels r, from the largest to the smallest.

    Raises:
        UserError: a stochastic sampler, or a level that the walk does not pass.

    Example:
        >>> from repro import registry
        >>> denoiser = registry.build("denoisers", "GaussianDenoiser", kernel=registry.build("kernels", "EDM"))
        >>> denoised_along(denoiser, registry.build("samplers", "Heun", steps=18), [0, 1], [10.0, 1.0]).shape
        torch.Size([2, 2, 1, 8, 8])
    """
    if sampler.stochastic:
        raise UserError(f"{type(sampler).__name__} is stochastic: it has no one way; take a deterministic sampler")
    kernel, points = denoiser.kernel, []
    for step in sampler.trajectory(denoiser, NoiseStream(list(seeds))):
        points.append(_point(kernel, step.t, step.x_t, step.x_0))
    if step.s is not None:
        t = step.s.flatten() if step.s.ndim else step.s
        points.append(_point(kernel, step.s, step.x_s, denoiser.denoise(step.x_s, t)))
    levels, states, slopes = (torch.stack(each) for each in zip(*points, strict=True))
    rows, estimates = torch.arange(len(seeds)), []
    for ratio in ratios:
        if ratio == 0:
            estimates.append(step.x_s)
            continue
        if not bool((levels.amin(0) <= ratio).all() and (levels.amax(0) >= ratio).all()):
            raise UserError(
                f"the walk of {type(sampler).__name__} goes from noise level {float(levels.max()):.3g} to "
                f"{float(levels.min()):.3g} and does not pass {ratio:g}"
            )
        after = (levels > ratio).sum(0).clamp(min=1)
        one, other = ((levels[k, rows], states[k, rows], slopes[k, rows]) for k in (after - 1, after))
        t = kernel.time_of_ratio(torch.tensor(float(ratio), dtype=torch.float64))
        estimates.append(denoiser.denoise(_between(one, other, ratio) * kernel.alpha(t), t))
    return torch.stack(estimates)


def _point(kernel: Kernel, t: Tensor, x_t: Tensor, x_0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Noise levels (B,), states :math:`x_t / \alpha_t` and their slopes over the level, the predicted noises."""
    times = t.double().flatten().expand(len(x_t))
    level, state = kernel.ratio(times), x_t / kernel.alpha(times)[:, None, None, None]
    return level, state, (state - x_0) / level[:, None, None, None]


def _between(one: tuple[Tensor, ...], other: tuple[Tensor, ...], level: float) -> Tensor:
    """The cubic with the states and slopes of two points (Hermite), at a level between theirs."""
    width = (other[0] - one[0])[:, None, None, None]
    part = ((level - one[0]) / (other[0] - one[0]).where(other[0] != one[0], torch.ones(())))[:, None, None, None]
    rise = other[1] - one[1]
    bend = (1 - part) * (one[2] * width - rise) - part * (other[2] * width - rise)
    return one[1] + part * rise + part * (1 - part) * bend
