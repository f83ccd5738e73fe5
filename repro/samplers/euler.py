"""The Euler sampler, which is DDIM."""

from __future__ import annotations

from torch import Tensor

from repro.errors import check_choice
from repro.samplers.base import Run
from repro.samplers.steps import COORDINATES, CoordinateName, FixedSteps, Spacing

__all__ = ["Euler"]


class Euler(FixedSteps):
    r"""Euler's method on the probability-flow equation, first order, one evaluation a step.

    In the ratio it is deterministic DDIM under every kernel, and DPM-Solver of order 1:

    .. math:: x_s = \alpha_s \hat x_0 + \sigma_s \hat\epsilon,
              \qquad \hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t

    Args:
        steps: Number of steps, which is the number of evaluations; the last leads to the clean image unless
            ``final_denoise`` is off.
        spacing: ``edm``, ``time_uniform``, ``time_quadratic`` or ``log_snr``.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image, as DDIM's does.
        rho: Power of the ``edm`` spacing.
        coordinate: ``ratio`` for DDIM; ``time`` steps :math:`x_t` along :math:`t`, as EDM's ablation does.
        ratios: Explicit falling noise levels in place of steps, spacing and ``t_end``.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: fewer than one step, an unknown spacing or coordinate, or ratios that do not fall.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import VP
        >>> from repro.noise import NoiseStream
        >>> Euler(steps=50).sample(GaussianDenoiser(VP()), NoiseStream(range(2))).shape
        torch.Size([2, 1, 8, 8])

    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 and 13.
    """

    def __init__(
        self,
        steps: int = 50,
        spacing: Spacing = "edm",
        t_end: float | None = None,
        final_denoise: bool = True,
        rho: float = 7.0,
        coordinate: CoordinateName = "ratio",
        ratios: list[float] | None = None,
        clip: bool = False,
    ) -> None:
        super().__init__(steps, spacing, t_end, final_denoise, rho, ratios, clip)
        check_choice("coordinate", coordinate, CoordinateName)
        self.coordinate = coordinate

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps from time t to time s along the slope at t: one evaluation."""
        along = COORDINATES[self.coordinate]
        x_0 = run.denoise(x_t, t)
        s = along.last_time(run.kernel) if s is None else s
        if s is None:
            return x_0, x_0
        return x_0, along.advance(run.kernel, x_t, along.slope(run.kernel, x_t, x_0, t), t, s)
