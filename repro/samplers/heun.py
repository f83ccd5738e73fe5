"""Heun's sampler of EDM."""

from __future__ import annotations

from torch import Tensor

from repro.errors import UserError
from repro.samplers.base import Run
from repro.samplers.euler import Euler
from repro.samplers.steps import COORDINATES, CoordinateName, Spacing

__all__ = ["Heun"]


class Heun(Euler):
    r"""EDM's deterministic sampler: Heun's method, second order, two evaluations a step and one for the last.

    With d the slope at the step's start, and d' that a part c of the way ahead, reached by an Euler step,

    .. math:: x_s = x_t + h \Big[ \Big(1 - \frac{1}{2c}\Big) d + \frac{1}{2c} d' \Big]

    written for :math:`x / \alpha` against the ratio (``coordinate="ratio"``), or for x against time. The step to the
    clean image is an Euler step, as in EDM, so ``steps=18`` costs 35 evaluations.

    Args:
        steps: Number of steps; the last leads to the clean image unless ``final_denoise`` is off.
        spacing: ``edm``, ``time_uniform``, ``time_quadratic`` or ``log_snr``.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image, as EDM's does.
        rho: Power of the ``edm`` spacing.
        coordinate: ``ratio``, the same under every kernel, or ``time``; with the right kernel and ratios the latter
            is EDM's ablation sampler.
        predictor: c in (0, 1]: 1 is Heun's method, 1/2 the midpoint method, 2/3 Ralston's.
        ratios: Explicit falling noise levels in place of steps, spacing and ``t_end``.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: fewer than one step, an unknown spacing or coordinate, a predictor outside (0, 1], or ratios that
            do not fall.

    Example:
        >>> Heun(steps=18).evaluations
        35

    Source: Karras et al. 2022, arXiv:2206.00364, algorithms 1 and 3.
    """

    def __init__(
        self,
        steps: int = 18,
        spacing: Spacing = "edm",
        t_end: float | None = None,
        final_denoise: bool = True,
        rho: float = 7.0,
        coordinate: CoordinateName = "ratio",
        predictor: float = 1.0,
        ratios: list[float] | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__(steps, spacing, t_end, final_denoise, rho, coordinate, ratios, clip)
        if not 0 < predictor <= 1:
            raise UserError(f"predictor is {predictor:g}; give a part of the step in (0, 1], 1 for Heun's method")
        self.predictor = predictor

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """Denoiser calls of one :meth:`sample`."""
        return 2 * self.steps - self.final_denoise

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps from time t to time s with two evaluations; to the clean image with one."""
        if s is None:
            return super().step(run, x_t, t, s)
        along, kernel = COORDINATES[self.coordinate], run.kernel
        x_0 = run.denoise(x_t, t)
        slope = along.slope(kernel, x_t, x_0, t)
        ahead = along.between(kernel, t, s, self.predictor)
        x_ahead = along.advance(kernel, x_t, slope, t, ahead)
        slope_ahead = along.slope(kernel, x_ahead, run.denoise(x_ahead, ahead), ahead)
        weight = 1 / (2 * self.predictor)
        return x_0, along.advance(kernel, x_t, slope.lerp(slope_ahead, weight), t, s)
