"""A perturbation kernel: two functions of time."""

import math

from torch import Tensor

from repro.kernels import Kernel

__all__ = ["Sine"]


class Sine(Kernel):
    r"""Variance-preserving kernel :math:`\alpha_t = \cos(\pi t / 2)`, :math:`\sigma_t = \sin(\pi t / 2)`.

    Args:
        t_min: Last time that samplers reach.
        t_max: First time, below 1, where no signal is left.
    """

    def __init__(self, t_min: float = 0.01, t_max: float = 0.98) -> None:
        self.t_min, self.t_max = t_min, t_max

    def log_alpha(self, t: Tensor) -> Tensor:
        return (t * (math.pi / 2)).cos().log()

    def sigma(self, t: Tensor) -> Tensor:
        return (t * (math.pi / 2)).sin()
