"""How the training of a consistency function proceeds: its noise levels, and how slowly its target follows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from repro.errors import UserError
from repro.kernels import Kernel
from repro.samplers.steps import time_grid
from repro.training.consistency_losses import adaptive_decay, progressive_levels

__all__ = ["ConsistencySchedule"]


@dataclass(frozen=True)
class ConsistencySchedule:
    """The number N of noise levels and the decay of the target at every optimiser step.

    Args:
        levels: N; of a rising number the first, :math:`s_0`.
        last_levels: N rises to this and one more (:math:`s_1 + 1`) over ``schedule_steps``; None for a fixed number.
        schedule_steps: Optimiser steps over which N rises.
        target_decay: Part :math:`\\mu` of the target that stays in a step, in [0, 1); 0 makes it a copy.
        adaptive: Whether that is :math:`\\mu_0`, for a target that follows more slowly the larger N is.
        rho: Power of the spacing of the times, :math:`r^{1/\\rho}`.

    Raises:
        UserError: a value outside its range.
    """

    levels: int
    last_levels: int | None
    schedule_steps: int
    target_decay: float
    adaptive: bool
    rho: float

    def __post_init__(self) -> None:
        for name, legal, advice in (
            ("levels", self.levels >= 2, "give at least 2 noise levels"),
            (
                "last_levels",
                self.last_levels is None or self.last_levels >= self.levels,
                f"give at least {self.levels}",
            ),
            ("schedule_steps", self.schedule_steps >= 1, "give at least 1"),
            ("target_decay", 0 <= self.target_decay < 1, "give a part from 0 to below 1"),
            ("rho", self.rho > 0, "give a power above 0, 7 in EDM"),
        ):
            if not legal:
                raise UserError(f"{name} is {getattr(self, name)}; {advice}")

    def levels_at(self, step: int) -> int:
        """Computes the number of noise levels at an optimiser step."""
        if self.last_levels is None:
            return self.levels
        return progressive_levels(step, self.levels, self.last_levels, self.schedule_steps)

    def decay_at(self, step: int) -> float:
        """Computes the part of the target that stays in an optimiser step."""
        if self.adaptive:
            return adaptive_decay(self.target_decay, self.levels, self.levels_at(step))
        return self.target_decay

    def times(self, kernel: Kernel, levels: int) -> Tensor:
        """Returns the N times of a kernel, falling from ``t_max`` to ``t_min``, float64 (N,)."""
        return time_grid(kernel, "edm", levels - 1, kernel.t_max, kernel.t_min, self.rho)
