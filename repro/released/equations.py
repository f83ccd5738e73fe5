"""The equations of score_sde's models: kernel, meaning of the output, training times, and how the paper draws."""

from __future__ import annotations

import math
from typing import Literal

from repro.errors import UserError
from repro.kernels import VE, Kernel
from repro.parameterizations import Eps, Parameterization
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.ode import RK45
from repro.times import TimeDistribution, UniformTimes

__all__ = ["KernelName", "usual_sampler", "variance_exploding"]

KernelName = Literal["VP", "SubVP", "DiscreteVP", "VE"]


def variance_exploding(
    low: float, high: float, count: int, fourier: bool, centred: bool
) -> tuple[Kernel, Parameterization, TimeDistribution]:
    """Kernel, meaning of the output (minus the noise, see :func:`repro.released.base.negating`) and training times.

    Noise levels double when images in [0, 1] become images in [-1, 1]; the network is told the old ones.

    Args:
        low: Smallest noise level that the network knows.
        high: Largest one.
        count: Number of levels of the discrete form.
        fourier: Whether the network is told the logarithm of the level; else the number of the level.
        centred: Whether the network was fed images in [-1, 1]; else in [0, 1].

    Raises:
        UserError: levels that do not rise.
    """
    if not 0 < low < high < math.inf or count < 2:
        raise UserError(f"noise levels from {low:g} to {high:g} are none of a VE model; they rise from above 0")
    factor = 1.0 if centred else 2.0
    kernel = VE(factor * low, factor * high)
    if fourier:
        meaning = Eps("log_ratio", condition_scale=1.0, condition_shift=-math.log(factor))
    else:
        meaning = Eps("time", condition_scale=-float(count - 1), condition_shift=float(count - 1))
    return kernel, meaning, UniformTimes()


def usual_sampler(kernel: str) -> Sampler:
    """Says how the paper draws from a model of score_sde: DPM-Solver, RK45 for SubVP and VE."""
    if kernel in ("SubVP", "VE"):
        return RK45(t_end=1e-3 if kernel == "SubVP" else 1e-5)
    return DPMSolver(steps=20, order=3, t_end=None if kernel == "DiscreteVP" else 1e-4)
