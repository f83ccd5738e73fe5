r"""What the samplers share: time grids, the two coordinates of a step, and the loop over a fixed grid.

Everything is written for any kernel. With the ratio :math:`r = \sigma_t / \alpha_t`, :math:`\hat x_0` the denoised
image and :math:`\hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t`, the probability-flow equation (Song et al. 2021,
arXiv:2011.13456, eq. 13) reads

.. math:: \frac{d}{dr} \frac{x_t}{\alpha_t} = \hat\epsilon
          \qquad\text{or}\qquad
          \frac{d x_t}{d t} = \dot\alpha_t \hat x_0 + \dot\sigma_t \hat\epsilon .
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from repro.errors import UserError, check_choice
from repro.kernels import Kernel
from repro.samplers.base import Run, Sampler, Step, noised

__all__ = [
    "COORDINATES",
    "Coordinate",
    "CoordinateName",
    "FixedSteps",
    "RatioCoordinate",
    "Spacing",
    "TimeCoordinate",
    "check_steps",
    "end_time",
    "noise_in",
    "time_grid",
]

Spacing = Literal["edm", "time_uniform", "time_quadratic", "log_snr"]
CoordinateName = Literal["ratio", "time"]

# The published grids of EDM start at the level of a table that is nearest to t_max, a little beside it.
_START_TOLERANCE = 0.01


def check_steps(name: str, steps: int, least: int = 1) -> None:
    """Raises UserError unless there are at least ``least`` steps."""
    if steps < least:
        raise UserError(f"{name}: steps is {steps}; give at least {least}")


def end_time(kernel: Kernel, t_end: float | None) -> float:
    """Computes the time at which a walk ends: ``t_end``, or the kernel's ``t_min``.

    Raises:
        UserError: ``t_end`` not between 0 and the kernel's ``t_max``.
    """
    if t_end is None:
        return kernel.t_min
    if not 0 < t_end < kernel.t_max:
        raise UserError(f"t_end is {t_end:g}; times of {type(kernel).__name__} lie between 0 and {kernel.t_max:g}")
    return t_end


def time_grid(
    kernel: Kernel, spacing: Spacing, intervals: int, t_start: float, t_end: float, rho: float = 7.0
) -> Tensor:
    r"""Spaces falling times evenly in a function of time.

    ======================== ==============================================================
    ``edm``                  :math:`r^{1/\rho}` (Karras et al. 2022, arXiv:2206.00364, eq. 5)
    ``time_uniform``         :math:`t`
    ``time_quadratic``       :math:`\sqrt t` (Song et al. 2021, arXiv:2010.02502, appendix D.2)
    ``log_snr``              :math:`\log r` (Lu et al. 2022, arXiv:2206.00927, section 3.4)
    ======================== ==============================================================

    Args:
        kernel: Defines the ratio r.
        spacing: The function of time.
        intervals: Number of intervals; 0 gives the start alone.
        t_start: First time.
        t_end: Last time.
        rho: Power of ``edm``.

    Returns:
        Times on the CPU, float64, shape (intervals + 1,).

    Example:
        >>> from repro.kernels import EDM
        >>> time_grid(EDM(), "time_quadratic", 2, 64.0, 4.0).tolist()
        [64.0, 25.0, 4.0]
    """
    ends = torch.tensor([t_start, t_end], dtype=torch.float64)
    if intervals == 0:
        return ends[:1]
    part = torch.linspace(0, 1, intervals + 1, dtype=torch.float64)
    if spacing == "log_snr":
        times = kernel.time_of_log_snr(torch.lerp(*kernel.log_snr(ends), part))
    elif spacing == "edm":
        times = kernel.time_of_ratio(torch.lerp(*kernel.ratio(ends) ** (1 / rho), part) ** rho)
    elif spacing == "time_quadratic":
        times = torch.lerp(*ends.sqrt(), part) ** 2
    else:
        times = torch.lerp(*ends, part)
    times[0], times[-1] = ends
    return times


def noise_in(kernel: Kernel, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
    r"""Returns the noise :math:`\hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t` that a denoised image implies."""
    return (x_t - kernel.alpha(t) * x_0) / kernel.sigma(t)


class Coordinate:
    """How a step between two times is taken: along which straight line, and where between the two."""

    def slope(self, kernel: Kernel, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Computes the derivative of the state in this coordinate."""
        raise NotImplementedError

    def advance(self, kernel: Kernel, x_t: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Returns the state at time s, at a constant slope."""
        raise NotImplementedError

    def between(self, kernel: Kernel, t: Tensor, s: Tensor, part: float) -> Tensor:
        """Returns the time that lies the given part of the way from t to s."""
        raise NotImplementedError

    def last_time(self, kernel: Kernel) -> Tensor | None:
        """Returns the noiseless time that a last step goes to; None where the step gives the denoised image itself."""
        return None


class RatioCoordinate(Coordinate):
    r""":math:`x_t / \alpha_t` against :math:`r`; images depend on the ratios alone, so not on the kernel."""

    def slope(self, kernel: Kernel, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Computes dx/dr in this coordinate: the predicted noise, shape of ``x_t``."""
        return noise_in(kernel, x_t, x_0, t)

    def advance(self, kernel: Kernel, x_t: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Moves along the ratio at a constant slope: the DDIM step when the slope is the noise at time t."""
        return kernel.alpha(s) * (x_t / kernel.alpha(t) + (kernel.ratio(s) - kernel.ratio(t)) * slope)

    def between(self, kernel: Kernel, t: Tensor, s: Tensor, part: float) -> Tensor:
        """Computes the time whose ratio lies a part of the way between the two ratios."""
        return s if part == 1 else kernel.time_of_ratio(torch.lerp(kernel.ratio(t), kernel.ratio(s), part))


class TimeCoordinate(Coordinate):
    r""":math:`x_t` against :math:`t`, as the ablation sampler of EDM steps for its "vp" and "ve" settings."""

    def slope(self, kernel: Kernel, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Computes dx/dt: the velocity of the probability flow, shape of ``x_t``."""
        alpha_dot = kernel.log_alpha_dot(t) * kernel.alpha(t)
        return alpha_dot * x_0 + kernel.sigma_dot(t) * noise_in(kernel, x_t, x_0, t)

    def advance(self, kernel: Kernel, x_t: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Moves along a straight line in time at a constant slope."""
        return x_t + (s - t) * slope

    def between(self, kernel: Kernel, t: Tensor, s: Tensor, part: float) -> Tensor:
        """Computes the time a part of the way between the two times."""
        return torch.lerp(t, s, part)

    def last_time(self, kernel: Kernel) -> Tensor | None:
        """Returns time 0, where that is noiseless under the kernel."""
        zero = torch.zeros((), dtype=torch.float64)
        return zero if kernel.sigma(zero) == 0 else None


COORDINATES: dict[str, Coordinate] = {"ratio": RatioCoordinate(), "time": TimeCoordinate()}


class FixedSteps(Sampler):
    r"""Base of the samplers that step through a grid known beforehand; one of them defines :meth:`step`.

    Args:
        steps: Number of steps. With ``final_denoise`` the last of them leads from ``t_end`` to the clean image, so
            ``steps`` noise levels are visited; without it the last ends at ``t_end``, after ``steps + 1`` levels.
        spacing: In which function of time the levels are evenly spaced, see :func:`time_grid`.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image.
        rho: Power of the ``edm`` spacing.
        ratios: Explicit falling noise levels :math:`\sigma_t / \alpha_t`, in place of steps, spacing and ``t_end``.
            The first is that of the kernel's ``t_max``, where the starting noise stands, to one per cent.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: fewer than one step, an unknown spacing, ``rho`` not above 0, or ratios that do not fall.
    """

    def __init__(
        self,
        steps: int,
        spacing: Spacing,
        t_end: float | None,
        final_denoise: bool,
        rho: float,
        ratios: list[float] | None,
        clip: bool = False,
    ) -> None:
        name = type(self).__name__
        if ratios is not None:
            if not ratios or min(ratios) <= 0 or any(b >= a for a, b in pairwise(ratios)):
                raise UserError(f"{name}: ratios must fall and stay above 0, for example [80, 1, 0.1]; got {ratios}")
            steps = len(ratios) - (not final_denoise)
        check_steps(name, steps)
        check_choice("spacing", spacing, Spacing)
        if not (rho > 0 and math.isfinite(rho)):
            raise UserError(f"{name}: rho is {rho:g}; give a power above 0, 7 in EDM")
        self.steps, self.spacing, self.t_end = steps, spacing, t_end
        self.final_denoise, self.rho, self.ratios, self.clip = final_denoise, rho, ratios, clip

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """Denoiser calls of one :meth:`sample`."""
        return self.steps

    def times(self, kernel: Kernel) -> Tensor:
        """Returns the times of the noise levels, falling, float64 on the CPU."""
        if self.ratios is not None:
            return kernel.time_of_ratio(torch.tensor(self.ratios, dtype=torch.float64))
        end = end_time(kernel, self.t_end)
        return time_grid(kernel, self.spacing, self.steps - self.final_denoise, kernel.t_max, end, self.rho)

    def check_start(self, kernel: Kernel) -> None:
        """Refuses explicit ratios whose first is not that of the kernel's ``t_max``."""
        if self.ratios is None:
            return
        start = kernel.ratio(torch.tensor(kernel.t_max, dtype=torch.float64)).item()
        if abs(self.ratios[0] / start - 1) > _START_TOLERANCE:
            raise UserError(
                f"{type(self).__name__}: ratios start at {self.ratios[0]:g}, but the noise of {type(kernel).__name__} "
                f"stands at {start:.6g}; make that the first"
            )

    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps from level to level, then, with ``final_denoise``, to the clean image."""
        times = [*self.times(run.kernel), *[None] * self.final_denoise]
        for t, s in pairwise(times):
            x_0, x_s = self.step(run, x, t, s)
            step = Step(t, s, x, x_0, x_s)
            yield step
            x = step.x_s

    def walk_back(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps from the last noise level to the first."""
        times = self.times(run.kernel).flip(0)
        x = noised(run, x, times[0]) if self.final_denoise else x
        for t, s in pairwise(times):
            x_0, x_s = self.step(run, x, t, s)
            yield (step := Step(t, s, x, x_0, x_s))
            x = step.x_s

    @abstractmethod
    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps from time t to time s, or to the clean image when s is None.

        Returns:
            The denoised image of the step's first evaluation, and the state after the step.
        """
