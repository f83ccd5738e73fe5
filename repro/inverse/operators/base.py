"""The contract of operators, and what every linear one can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from repro.errors import UserError
from repro.registry import Plugin

__all__ = ["Operator"]


class Operator(Plugin, ABC):
    r"""Base of the operators A of :math:`y = A(x) + \sigma_y \epsilon`; one of them defines :meth:`forward`.

    An operator acts on every image of a batch alike, is differentiable, and keeps dtype and device.

    Attributes:
        linear: Whether A is linear; only then are :meth:`adjoint` and :meth:`project` there.
    """

    linear: ClassVar[bool] = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Measurements of images (B, C, H, W) in [-1, 1]: shape (B, ...).

        Raises:
            UserError: images of a size that does not fit.
        """

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def picture(self, y: Tensor) -> Tensor:
        """Measurements as images that can be looked at, shape (B, C, H', W'): themselves unless said otherwise."""
        return y

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        r""":math:`A^T y`, with :math:`\langle A x, y\rangle = \langle x, A^T y\rangle`, by automatic differentiation.

        Args:
            y: Measurements of B images.
            image_shape: (C, H, W).

        Raises:
            UserError: the operator is not linear.
        """
        if not self.linear:
            raise UserError(f"{type(self).__name__} is not linear and has no adjoint")
        with torch.enable_grad():
            x = torch.zeros(len(y), *image_shape, dtype=y.dtype, device=y.device, requires_grad=True)
            (gradient,) = torch.autograd.grad(self.forward(x), x, y)
        return gradient

    def project(self, x: Tensor, y: Tensor, steps: int = 1000, tolerance: float = 1e-14) -> Tensor:
        r"""Returns the images nearest to ``x`` whose measurements are ``y``: :math:`x + A^T (A A^T)^{+} (y - A x)`.

        Solved by conjugate gradients, for every image by itself.

        Args:
            x: Images (B, C, H, W), float64.
            y: Measurements.
            steps: Most steps.
            tolerance: Squared residual, as a part of its start, at which the solver stops.

        Raises:
            UserError: the operator is not linear.
        """
        shape = tuple(x.shape[1:])
        residual = y - self.forward(x)
        solution = torch.zeros_like(residual)
        direction, norm = residual, _square(residual)
        first = norm.clamp(min=torch.finfo(norm.dtype).tiny)
        for _ in range(steps):
            if bool((norm <= tolerance * first).all()):
                break
            image = self.forward(self.adjoint(direction, shape))
            step = _share(norm, _inner(direction, image))
            solution = solution + _spread(step, direction)
            residual = residual - _spread(step, image)
            before, norm = norm, _square(residual)
            direction = residual + _spread(_share(norm, before), direction)
        return x + self.adjoint(solution, shape)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _square(a: Tensor) -> Tensor:
    return _inner(a, a)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.zeros_like(part))


def _spread(factor: Tensor, a: Tensor) -> Tensor:
    return factor.view(-1, *[1] * (a.ndim - 1)) * a
