"""Laws of parameterisations."""

from __future__ import annotations

import torch

from repro.kernels import Kernel
from repro.parameterizations import Parameterization

__all__ = ["check_parameterization"]


def check_parameterization(parameterization: Parameterization, kernel: Kernel) -> None:
    """Checks that a parameterisation's formulas belong together under a kernel.

    The training target means the clean image and the noise, and is finite; loss weights are positive; the network's
    input has a positive scale; its noise level rises or falls with time. Where no output matters, which only the
    smallest time may be, target and weight need only be finite.

    Args:
        parameterization: Any parameterisation.
        kernel: Any kernel.

    Raises:
        AssertionError: a law is broken; the message names it.
    """
    name = f"{type(parameterization).__name__} under {type(kernel).__name__}"
    t = torch.linspace(kernel.t_min, kernel.t_max, 23, dtype=torch.float64)
    alpha, sigma = kernel.alpha(t)[:, None, None, None], kernel.sigma(t)[:, None, None, None]
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, len(t), 2, 3, 3, generator=generator, dtype=torch.float64)
    x_t = alpha * x_0 + sigma * eps
    target = parameterization.target(x_0, eps, alpha, sigma)
    assert bool(target.isfinite().all()), f"{name}: a training target is not finite"
    outputs = torch.zeros_like(target), torch.randn(target.shape, generator=generator, dtype=torch.float64)
    answers = [parameterization.to_x_0(output, x_t, alpha, sigma) for output in outputs]
    free = (answers[0] != answers[1]).flatten(1).all(1)
    assert bool(free[1:].all()), f"{name}: the output does not matter at some time after the smallest"
    for what, meant, right, noise in (
        ("to_x_0(target) is not x_0", parameterization.to_x_0(target, x_t, alpha, sigma), x_0, sigma / alpha),
        ("to_eps(target) is not eps", parameterization.to_eps(target, x_t, alpha, sigma), eps, alpha / sigma),
    ):
        error = ((meant - right).abs() / (1 + noise))[free].max().item()
        assert error < 1e-11, f"{name}: {what}, error {error:.1e} of the rounding that the formula forgives"
    weight = torch.as_tensor(parameterization.loss_weight(alpha, sigma))
    weight = weight.to(alpha).expand_as(alpha)
    assert bool((weight[free] > 0).all() and weight.isfinite().all()), f"{name}: a loss weight is not positive"
    scale = torch.as_tensor(parameterization.input_scale(alpha, sigma)).expand_as(alpha)
    assert bool(((scale > 0) & scale.isfinite()).all()), f"{name}: an input scale is not positive and finite"
    level = parameterization.noise_level(t, -kernel.log_snr(t))
    steps = level.diff()
    assert bool((steps > 0).all() or (steps < 0).all()), f"{name}: the noise level is not monotone in time"
