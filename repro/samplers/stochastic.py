"""Samplers that add noise as they go; it is numbered, so that image i stays image i."""

from __future__ import annotations

import math

from torch import Tensor

from repro.errors import UserError, check_at_least
from repro.samplers.base import Run
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.steps import CoordinateName, FixedSteps, Spacing, noise_in

__all__ = ["Ancestral", "EDMStochastic"]


class Ancestral(FixedSteps):
    r"""DDPM's ancestral sampler under every kernel, with DDIM at the other end of ``eta``.

    With :math:`q = r_s / r_t` the ratio of the two noise levels and z the step's numbered noise,

    .. math:: x_s = \alpha_s \hat x_0 + \sigma_s \Big( \sqrt{1 - \eta^2 (1 - q^2)}\, \hat\epsilon
              + \eta \sqrt{1 - q^2}\, z \Big)

    For :math:`\eta = 1` this draws from the Gaussian :math:`q(x_s | x_t, \hat x_0)`; noise k belongs to step k.

    Args:
        steps: Number of steps, which is the number of evaluations; the last leads to the clean image unless
            ``final_denoise`` is off.
        spacing: ``edm``, ``time_uniform``, ``time_quadratic`` or ``log_snr``.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image, without noise, as DDPM's does.
        rho: Power of the ``edm`` spacing.
        eta: Part of the noise that is drawn afresh, in [0, 1].
        ratios: Explicit falling noise levels in place of steps, spacing and ``t_end``.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: fewer than one step, an unknown spacing, ``eta`` outside [0, 1], or ratios that do not fall.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7; Song et al. 2021, arXiv:2010.02502, eq. 16.
    """

    stochastic = True

    def __init__(
        self,
        steps: int = 100,
        spacing: Spacing = "edm",
        t_end: float | None = None,
        final_denoise: bool = True,
        rho: float = 7.0,
        eta: float = 1.0,
        ratios: list[float] | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__(steps, spacing, t_end, final_denoise, rho, ratios, clip)
        if not 0 <= eta <= 1:
            raise UserError(f"eta is {eta:g}; give a number from 0 (DDIM) to 1 (DDPM)")
        self.eta = eta

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps from time t to time s with one evaluation and one fresh noise, none to the clean image."""
        kernel, x_0 = run.kernel, run.denoise(x_t, t)
        if s is None:
            return x_0, x_0
        fresh = self.eta**2 * (1 - (kernel.ratio(s) / kernel.ratio(t)) ** 2)
        noise = (1 - fresh).sqrt() * noise_in(kernel, x_t, x_0, t) + fresh.sqrt() * run.draw(x_t)
        return x_0, kernel.alpha(s) * x_0 + kernel.sigma(s) * noise


class EDMStochastic(Heun):
    r"""EDM's stochastic sampler: before each step noise is added, up to the level :math:`(1 + \gamma) r`.

    .. math:: \gamma = \min(\text{churn} / \text{steps}, \sqrt 2 - 1) \text{ where } r \in [\text{churn_min},
              \text{churn_max}], \text{ else } 0

    Without churn it is :class:`Heun` (or :class:`Euler`) to the last bit. Noise k belongs to step k, used or not.

    Args:
        steps: Number of steps; the last leads to the clean image unless ``final_denoise`` is off.
        spacing: ``edm``, ``time_uniform``, ``time_quadratic`` or ``log_snr``.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image, as EDM's does.
        rho: Power of the ``edm`` spacing.
        coordinate: ``ratio`` or ``time``, as in :class:`Heun`.
        predictor: As in :class:`Heun`.
        order: 2 for Heun's steps, 1 for Euler's.
        churn: Amount of added noise over all steps, at least 0; EDM takes 40 in 256 steps for ImageNet.
        churn_min: Smallest ratio that is churned.
        churn_max: Largest ratio that is churned, None for no limit; raised levels may lie above the kernel's ``t_max``.
        noise_scale: Standard deviation of the added noise; EDM takes up to 1.007 for networks that lose detail.
        ratios: Explicit falling noise levels in place of steps, spacing and ``t_end``.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: as :class:`Heun`, an order other than 1 or 2, or a negative churn or noise scale.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2.
    """

    stochastic = True

    def __init__(
        self,
        steps: int = 64,
        spacing: Spacing = "edm",
        t_end: float | None = None,
        final_denoise: bool = True,
        rho: float = 7.0,
        coordinate: CoordinateName = "ratio",
        predictor: float = 1.0,
        order: int = 2,
        churn: float = 10.0,
        churn_min: float = 0.05,
        churn_max: float | None = 50.0,
        noise_scale: float = 1.0,
        ratios: list[float] | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__(steps, spacing, t_end, final_denoise, rho, coordinate, predictor, ratios, clip)
        if order not in (1, 2):
            raise UserError(f"order is {order}; EDMStochastic has 1 (Euler) and 2 (Heun)")
        check_at_least(0, churn=churn, churn_min=churn_min, noise_scale=noise_scale)
        self.order, self.churn, self.noise_scale = order, churn, noise_scale
        self.churn_min, self.churn_max = churn_min, math.inf if churn_max is None else churn_max

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """Denoiser calls of one :meth:`sample`."""
        return super().evaluations if self.order == 2 else self.steps

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Adds the step's noise, then steps from the higher level."""
        noise, kernel = run.draw(x_t), run.kernel
        ratio = kernel.ratio(t)
        if self.churn > 0 and self.churn_min <= ratio <= self.churn_max:
            t_up = kernel.time_of_ratio((1 + min(self.churn / self.steps, math.sqrt(2) - 1)) * ratio)
            added = (kernel.ratio(t_up) ** 2 - ratio**2).clamp(min=0).sqrt() * self.noise_scale
            x_t = kernel.alpha(t_up) * (x_t / kernel.alpha(t) + added * noise)
            t = t_up
        return super().step(run, x_t, t, s) if self.order == 2 else Euler.step(self, run, x_t, t, s)
