r"""Denoisers: a network (or a formula) under a kernel and a parameterisation; gives :math:`x_0`, noise and score.

All of them answer the same question, the posterior mean :math:`E[x_0 | x_t]`, so samplers, tasks and studies never
ask where a denoiser came from. Those with a closed form, the best possible answer for a known distribution, are
denoisers like any other.
"""

from repro.denoisers.base import Denoiser, UnderKernel
from repro.denoisers.empirical import EmpiricalDenoiser
from repro.denoisers.gaussian import GaussianDenoiser
from repro.denoisers.guided import GuidedDenoiser
from repro.denoisers.mixture import LowRankMixtureDenoiser
from repro.denoisers.network import NetworkDenoiser

__all__ = [
    "Denoiser",
    "EmpiricalDenoiser",
    "GaussianDenoiser",
    "GuidedDenoiser",
    "LowRankMixtureDenoiser",
    "NetworkDenoiser",
    "UnderKernel",
]
