"""Which noise levels a training step sees: distributions of the time t under a kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from repro.errors import UserError
from repro.kernels import DiscreteVP, Kernel
from repro.registry import Plugin

__all__ = ["DiscreteTimes", "LogNormalTimes", "TimeDistribution", "UniformTimes"]


class TimeDistribution(Plugin, ABC):
    """Base of the time distributions; one of them defines :meth:`of_uniform`.

    Args:
        stratified: Spread the draws of one batch evenly (one in each of B equal slices of probability), which lowers
            the variance of the loss and leaves its mean as it is.
    """

    def __init__(self, stratified: bool = False) -> None:
        self.stratified = stratified

    def draw(self, count: int, kernel: Kernel, device: torch.device) -> Tensor:
        """Computes times of a batch, float32 of shape (count,), from the default generator of the device."""
        if self.stratified:
            u = (torch.arange(count, device=device) + torch.rand((), device=device)) / count
        else:
            u = torch.rand(count, device=device)
        return self.of_uniform(u, kernel)

    @abstractmethod
    def of_uniform(self, u: Tensor, kernel: Kernel) -> Tensor:
        """Computes the quantile function: times at the probabilities ``u`` in [0, 1)."""


class UniformTimes(TimeDistribution):
    """Uniform in time between ``t_min`` and ``t_max`` of the kernel (Song et al. 2021)."""

    def of_uniform(self, u: Tensor, kernel: Kernel) -> Tensor:
        return kernel.t_min + (kernel.t_max - kernel.t_min) * u


class DiscreteTimes(TimeDistribution):
    """The steps of a discrete kernel, each as likely as the others (Ho et al. 2020)."""

    def of_uniform(self, u: Tensor, kernel: Kernel) -> Tensor:
        if not isinstance(kernel, DiscreteVP):
            raise UserError(
                f"DiscreteTimes needs the kernel DiscreteVP, got {type(kernel).__name__}; take UniformTimes"
            )
        return (torch.floor(u * kernel.steps) + 1) / kernel.steps


class LogNormalTimes(TimeDistribution):
    r"""Normal in :math:`\log(\sigma_t / \alpha_t)`, kept between the kernel's end times.

    Args:
        mean: Mean of the logarithm of the ratio.
        std: Its standard deviation, above 0.
        stratified: As in every time distribution.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, stratified: bool = False) -> None:
        super().__init__(stratified)
        if std <= 0:
            raise UserError(f"LogNormalTimes: std is {std:g}; give a standard deviation above 0")
        self.mean, self.std = mean, std

    def of_uniform(self, u: Tensor, kernel: Kernel) -> Tensor:
        ratio = (self.mean + self.std * torch.special.ndtri(u.double())).exp()
        lowest, highest = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=ratio.dtype)).tolist()
        return kernel.time_of_ratio(ratio.clamp(lowest, highest)).to(u.dtype)
