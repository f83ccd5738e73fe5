r"""The smallest training loss that a training set allows: that of its empirical optimum.

The empirical optimum minimises the training loss of every parameterisation, so a network whose loss reaches it has
memorised the training images, and one whose loss stays above it has not.

Source: Zhang et al. 2024, arXiv:2310.05264, proposition 1 and figure 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repro.data.base import ImageData
from repro.denoisers import Denoiser, EmpiricalDenoiser
from repro.images import to_float
from repro.noise import draw_noise
from repro.parameterizations import Parameterization
from repro.training.diffusion import Diffusion

__all__ = ["LevelLoss", "losses_by_level", "optimal_loss", "optimum_of"]

_BATCH = 256


def optimal_loss(
    optimum: Denoiser,
    parameterization: Parameterization,
    x_0: Tensor,
    eps: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    r"""Computes the training loss that an exact denoiser would have, under given noises and times.

    The output that a denoised image :math:`\hat x_0` stands for is the target of
    :math:`(\hat x_0, (x_t - \alpha_t \hat x_0) / \sigma_t)`, so the loss is that of
    :meth:`repro.training.diffusion.Diffusion.loss_at` for a network that answers so. Computed in float64.

    Args:
        optimum: The denoiser, under the kernel of the training.
        parameterization: That of the training.
        x_0: Images as the model is shown them, (B, C, H, W).
        eps: Unit normal noise of the same shape.
        t: Times, () or (B,).
        labels: Classes (B,), for the conditional form.

    Returns:
        float64 (B,).

    Example:
        >>> from repro.kernels import VP
        >>> from repro.parameterizations import Eps
        >>> image, t = torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor(0.5)
        >>> x_0 = to_float(image)
        >>> optimal_loss(EmpiricalDenoiser(image, VP()), Eps(), x_0, torch.ones_like(x_0), t).item() < 1e-20
        True
    """
    x_0, eps = x_0.double(), eps.double()
    alpha, sigma = optimum.scales(x_0, t)
    x_t = alpha * x_0 + sigma * eps
    denoised = optimum.denoise(x_t, t, labels)
    output = parameterization.target(denoised, (x_t - alpha * denoised) / sigma, alpha, sigma)
    error = output - parameterization.target(x_0, eps, alpha, sigma)
    return (error.square() * parameterization.loss_weight(alpha, sigma)).flatten(1).mean(1)


def optimum_of(module: Diffusion, data: ImageData, **options: Any) -> EmpiricalDenoiser:
    """Returns the empirical optimum of what a module is trained on: its kernel, the images, mirrored ones, classes.

    Args:
        module: The module; one with classes gets the conditional form.
        data: Its training data.
        **options: ``chunk`` and ``precision`` of :class:`~repro.denoisers.EmpiricalDenoiser`.
    """
    images, labels = data.shown()
    return EmpiricalDenoiser(images, module.trained.kernel, labels=labels if module.num_classes else None, **options)


class LevelLoss(NamedTuple):
    r"""Losses at one noise level.

    Attributes:
        ratio: :math:`\sigma_t / \alpha_t`.
        trained: Loss of the averaged weights.
        optimal: Loss of the empirical optimum at the same images and noises.
    """

    ratio: float
    trained: float
    optimal: float


@torch.no_grad()
def losses_by_level(
    module: Diffusion, optimum: EmpiricalDenoiser, data: ImageData, levels: int = 8, images: int = 256
) -> Iterator[LevelLoss]:
    """Computes losses of the averaged weights and of the empirical optimum, level by level, at fixed images and noises.

    The levels are the middles of equally probable slices of the training times, so their mean estimates the training
    loss.

    Args:
        module: The trained module.
        optimum: As :func:`optimum_of` gives it.
        data: The training data.
        levels: How many noise levels.
        images: How many noised images: those of the training set in turn, with noises 0, 1, 2, ...
    """
    kernel, device = module.trained.kernel, module.device
    rows = torch.arange(images) % len(data)
    chosen = data.images()[rows]
    labels = data.labels()[rows].to(device) if module.num_classes else None
    noise = draw_noise(range(len(chosen)), chosen.shape[1:])
    for t in module.times.of_uniform((torch.arange(levels) + 0.5) / levels, kernel):
        losses = []
        for first in range(0, len(chosen), _BATCH):
            part = slice(first, first + _BATCH)
            x_0, eps = to_float(chosen[part]).to(device), noise[part].to(device)
            draws = (x_0, eps, t.to(device), None if labels is None else labels[part])
            trained = module.loss_at(module.average, *draws).double()
            losses.append(torch.stack([trained, optimal_loss(optimum, module.trained.parameterization, *draws)]))
        means = torch.cat(losses, 1).mean(1).tolist()
        yield LevelLoss(kernel.ratio(t.double()).item(), *means)
