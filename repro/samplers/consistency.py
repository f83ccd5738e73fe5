"""The sampler of consistency models: one jump to the image, or several with fresh noise in between."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from repro.kernels import Kernel
from repro.samplers.base import Run
from repro.samplers.steps import FixedSteps, time_grid

__all__ = ["Consistency"]


class Consistency(FixedSteps):
    r"""Jumps from each noise level to the image, and back up to the next lower level with fresh noise.

    With f the consistency function, :math:`\epsilon` the ratio at the kernel's ``t_min``, and z the step's numbered
    noise,

    .. math:: \hat x_0 = f(x_t, t), \qquad x_s = \alpha_s \big(\hat x_0 + \sqrt{r_s^2 - \epsilon^2}\, z \big)

    and the last step's :math:`\hat x_0` is the image. One step draws no noise: the image is a function of the starting
    noise alone. Noise k belongs to step k.

    Args:
        steps: Number of steps, which is the number of evaluations. Their levels are the first of ``steps + 1`` that
            run from ``t_max`` to ``t_min`` evenly in :math:`r^{1/\rho}`.
        rho: :math:`\rho`, as in EDM.
        ratios: Explicit falling noise levels in place of ``steps``; the first is that of ``t_max``.
        clip: Cut each step's image to [-1, 1].

    Raises:
        UserError: fewer than one step, ``rho`` not above 0, or ratios that do not fall.

    Example:
        >>> from repro.kernels import EDM
        >>> [round(t, 3) for t in Consistency(steps=2).times(EDM()).tolist()]
        [80.0, 2.515]

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 1.
    """

    consistency: ClassVar[bool] = True
    later_arguments: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, steps: int = 1, rho: float = 7.0, ratios: list[float] | None = None, clip: bool = False) -> None:
        super().__init__(steps, "edm", None, True, rho, ratios, clip)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """True: the sampler has several steps, between which it draws noise."""
        return self.steps > 1

    def times(self, kernel: Kernel) -> Tensor:
        if self.ratios is not None:
            return super().times(kernel)
        return time_grid(kernel, "edm", self.steps, kernel.t_max, kernel.t_min, self.rho)[:-1]

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Jumps to the image with one evaluation, then adds noise up to time s unless it is the last step."""
        kernel, x_0 = run.kernel, run.denoise(x_t, t)
        if s is None:
            return x_0, x_0
        lowest = kernel.ratio(torch.tensor(kernel.t_min, dtype=torch.float64))
        added = (kernel.ratio(s) ** 2 - lowest**2).clamp(min=0).sqrt()
        return x_0, kernel.alpha(s) * (x_0 + added * run.draw(x_t))
