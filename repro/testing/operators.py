"""Laws of operators."""

from __future__ import annotations

import torch

from repro.inverse.operators import Operator

__all__ = ["check_operator"]


def check_operator(operator: Operator, image_shape: tuple[int, int, int] = (3, 16, 16)) -> None:
    r"""Checks what posterior sampling takes for granted of an operator.

    Images are measured each by itself, in their dtype, differentiably and within the range of a picture. A linear one
    is linear, its adjoint obeys :math:`\langle A x, y\rangle = \langle x, A^T y\rangle`, and projected images have the
    wanted measurements.

    Args:
        operator: Any operator.
        image_shape: (C, H, W) of images that it takes.

    Raises:
        AssertionError: a law is broken; the message names it.
    """
    name = type(operator).__name__
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(3, *image_shape, generator=generator, dtype=torch.float64) - 1
    y = operator(x)
    assert len(y) == len(x), f"{name} changes the number of images"
    assert y.dtype == x.dtype, f"{name} changes float64"
    assert operator(x.float()).dtype == torch.float32, f"{name} changes float32"
    alone = torch.cat([operator(x[i : i + 1]) for i in range(len(x))])
    assert torch.allclose(alone, y, rtol=1e-12, atol=1e-12), f"{name}: an image's measurement depends on its batch"
    assert operator.picture(y).ndim == 4, f"{name}: picture() gives no images"
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(operator(leaf).square().sum(), leaf)
    assert gradient.isfinite().all(), f"{name} has no finite gradient"
    assert gradient.abs().sum() > 0, f"{name} has no gradient"
    if operator.linear:
        _check_linear(operator, x, y, generator)


def _check_linear(operator: Operator, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> None:
    name, shape = type(operator).__name__, tuple(x.shape[1:])
    other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    together = operator(2 * x - 3 * other)
    apart = 2 * y - 3 * operator(other)
    assert torch.allclose(together, apart, rtol=1e-9, atol=1e-9), f"{name} is not linear"
    w = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    forth, back = (y * w).sum(), (x * operator.adjoint(w, shape)).sum()
    assert abs(forth - back) <= 1e-9 * max(abs(forth), 1), f"{name}: <Ax, y> is {forth:.9g}, <x, A'y> is {back:.9g}"
    projected = operator.project(other, y)
    worst = (operator(projected) - y).abs().max().item()
    assert worst < 1e-4, f"{name}: projected images miss their measurements by {worst:.3g}"
