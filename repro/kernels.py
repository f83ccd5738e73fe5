r"""Perturbation kernels: :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`.

Time runs from ``t_min`` (data) up to ``t_max`` (noise); samplers walk it downwards. Three functions of time say
everything: :math:`\alpha_t`, :math:`\sigma_t` and their ratio :math:`\sigma_t/\alpha_t` (the sigma of EDM and the
paper), whose negative logarithm is the half log signal-to-noise ratio of DPM-Solver. Two kernels differ only in how
they scale :math:`x_t` and how they run through the ratios, which is why one noise gives one image under all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from repro.devices import onto
from repro.errors import UserError, unknown
from repro.registry import Plugin

__all__ = ["EDM", "VE", "VP", "Cosine", "DiscreteVP", "Flow", "Kernel", "SubVP"]


class Kernel(Plugin, ABC):
    r"""Base of the perturbation kernels; a new one defines :meth:`log_alpha` and :meth:`sigma`.

    The ratio must grow with time. Everything takes and gives floating tensors of any shape and keeps their dtype.

    Attributes:
        t_min: Last time that a sampler reaches, close to the data.
        t_max: Time that a sampler starts from.
        prior_scale: The start is ``x_T = prior_scale * noise``, noise unit normal (paper, appendix A).
    """

    t_min: float
    t_max: float
    prior_scale: float = 1.0

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        r"""Computes :math:`\log \alpha_t`, the logarithm of the signal's scale."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        r"""Computes :math:`\sigma_t`, the standard deviation of the noise."""

    def alpha(self, t: Tensor) -> Tensor:
        r"""Computes :math:`\alpha_t`, the scale of the signal."""
        return self.log_alpha(t).exp()

    def ratio(self, t: Tensor) -> Tensor:
        r"""Computes :math:`\sigma_t / \alpha_t`: noise level of the unscaled image :math:`x_t / \alpha_t`."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Computes :math:`\lambda_t = \log(\alpha_t / \sigma_t)`, half the log signal-to-noise ratio."""
        return self.log_alpha(t) - self.sigma(t).log()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        """Inverts :meth:`ratio`, by bisection unless a kernel knows better."""
        low, high = torch.zeros_like(ratio), torch.full_like(ratio, self.t_max)
        for _ in range(80):
            middle = (low + high) / 2
            above = self.ratio(middle) > ratio
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverts :meth:`log_snr`: the time of a half log signal-to-noise ratio."""
        return self.time_of_ratio((-log_snr).exp())

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        r"""Computes :math:`d \log\alpha_t / dt`, the drift coefficient f(t) of the forward equation."""
        return _derivative(self.log_alpha, t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        r"""Computes :math:`d \sigma_t / dt`."""
        return _derivative(self.sigma, t)


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        t = t.clone().requires_grad_()
        value = function(t).sum()
        return torch.autograd.grad(value, t)[0] if value.requires_grad else torch.zeros_like(t)


def _check_times(name: str, t_min: float, t_max: float, highest: float = math.inf) -> None:
    if not 0 < t_min < t_max <= highest:
        raise UserError(f"{name} needs 0 < t_min < t_max <= {highest:g}, got t_min={t_min:g} and t_max={t_max:g}")


class VP(Kernel):
    r"""Variance-preserving kernel with a noise rate linear in time.

    .. math:: \log\alpha_t = -\tfrac14 t^2 (b_1 - b_0) - \tfrac12 t\, b_0, \qquad \sigma_t^2 = 1 - \alpha_t^2

    Args:
        rate_min: :math:`b_0 > 0`, per unit time.
        rate_max: :math:`b_1 > b_0`, per unit time.
        t_min: Smallest time; time ends at 1.

    Raises:
        UserError: rates or times out of order.

    Example:
        >>> kernel, t = VP(), torch.tensor(0.5, dtype=torch.float64)
        >>> round((kernel.alpha(t) ** 2 + kernel.sigma(t) ** 2).item(), 12)
        1.0

    Source: Song et al. 2021, arXiv:2011.13456, appendix C.
    """

    t_max = 1.0

    def __init__(self, rate_min: float = 0.1, rate_max: float = 20.0, t_min: float = 1e-3) -> None:
        if not 0 < rate_min < rate_max:
            raise UserError(f"VP needs 0 < rate_min < rate_max, got rate_min={rate_min:g} and rate_max={rate_max:g}")
        _check_times("VP", t_min, self.t_max)
        self.rate_min, self.rate_max, self.t_min = rate_min, rate_max, t_min

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.rate_max - self.rate_min) - 0.5 * t * self.rate_min

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return self._time_of_log_alpha(-0.5 * torch.log1p(ratio**2))

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        slope = self.rate_max - self.rate_min
        return -2 * log_alpha / (0.5 * self.rate_min + (0.25 * self.rate_min**2 - slope * log_alpha).sqrt())


class SubVP(VP):
    r"""Sub-variance-preserving kernel: VP's :math:`\alpha_t` with :math:`\sigma_t = 1 - \alpha_t^2`.

    Args:
        rate_min: :math:`b_0 > 0`, per unit time.
        rate_max: :math:`b_1 > b_0`, per unit time.
        t_min: Smallest time; time ends at 1.

    Source: Song et al. 2021, arXiv:2011.13456, appendix C.
    """

    def __init__(self, rate_min: float = 0.1, rate_max: float = 20.0, t_min: float = 1e-3) -> None:
        super().__init__(rate_min, rate_max, t_min)

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return self._time_of_log_alpha(-torch.asinh(ratio / 2))


class DiscreteVP(Kernel):
    r"""The variance-preserving kernel of DDPM: a table of N steps, piecewise linear in :math:`\log\alpha` between.

    Step i = 0 .. N-1 stands at time (i + 1) / N, so the step that DDPM names is :math:`N t - 1`. Steps whose log
    signal-to-noise ratio falls below ``2 * log_snr_min`` are left out and the others spread over (0, 1].

    Args:
        schedule: ``linear`` (Ho et al. 2020: betas from 1e-4 to 0.02), ``cosine`` (Nichol & Dhariwal 2021), or
            ``scaled_linear`` (Rombach et al. 2022, for latents: roots of betas evenly spread, from 8.5e-4 to 0.012).
        steps: N.
        log_snr_min: Smallest half log signal-to-noise ratio that is kept.

    Raises:
        UserError: an unknown schedule, too few steps for it (linear: 21, scaled_linear: 13), or fewer than two that are
            kept.

    Source: Ho et al. 2020, arXiv:2006.11239; interpolation as in Lu et al. 2022, arXiv:2206.00927, appendix D.
    """

    t_max = 1.0

    def __init__(
        self,
        schedule: Literal["linear", "cosine", "scaled_linear"] = "linear",
        steps: int = 1000,
        log_snr_min: float = -5.1,
    ) -> None:
        fewest = {"linear": 21, "cosine": 2, "scaled_linear": 13}
        if schedule not in fewest:
            raise unknown("schedule of DiscreteVP", schedule, fewest)
        least = fewest[schedule]
        if steps < least:
            raise UserError(f"DiscreteVP needs at least {least} steps for the {schedule} schedule, got {steps}")
        if schedule == "linear":
            betas = np.linspace(0.1 / steps, 20 / steps, steps)
        elif schedule == "scaled_linear":
            betas = np.linspace((0.85 / steps) ** 0.5, (12 / steps) ** 0.5, steps) ** 2
        else:
            level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - level[1:] / level[:-1], 0.999)
        log_alpha = 0.5 * np.cumsum(np.log1p(-betas))
        log_snr = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))
        log_alpha = log_alpha[log_snr >= log_snr_min]
        if len(log_alpha) < 2:
            raise UserError(f"log_snr_min={log_snr_min:g} keeps fewer than 2 steps of DiscreteVP; the default is -5.1")
        self.schedule, self.steps = schedule, len(log_alpha)
        self.t_min = 1 / self.steps
        self._log_alphas = torch.from_numpy(log_alpha)
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def _table(self, like: Tensor) -> Tensor:
        """The logarithms of alpha on the device and in the dtype of a tensor; copied there once."""
        key = like.device, like.dtype
        if key not in self._tables:
            self._tables[key] = onto(like.device, self._log_alphas, like.dtype)
        return self._tables[key]

    def log_alpha(self, t: Tensor) -> Tensor:
        table = self._table(t)
        position = t * self.steps - 1
        left = position.detach().floor().clamp(0, self.steps - 2).long()
        return torch.lerp(table[left], table[left + 1], position - left)

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        table = self._table(ratio)
        wanted = -0.5 * torch.log1p(ratio**2)
        left = (torch.searchsorted(-table, -wanted.contiguous()) - 1).clamp(0, self.steps - 2)
        position = left + (wanted - table[left]) / (table[left + 1] - table[left])
        return (position + 1) / self.steps


class VE(Kernel):
    r"""Variance-exploding kernel, geometric in time.

    .. math:: \alpha_t = 1, \qquad \sigma_t = \sigma_{\min} (\sigma_{\max} / \sigma_{\min})^t

    Args:
        sigma_min: Noise level at time 0, in units of images in [-1, 1].
        sigma_max: Noise level at time 1; also the scale of the starting noise.
        t_min: Smallest time; time ends at 1.

    Raises:
        UserError: noise levels or times out of order.

    Source: Song et al. 2021, arXiv:2011.13456, appendix C.
    """

    t_max = 1.0

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, t_min: float = 1e-5) -> None:
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"VE needs 0 < sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}")
        _check_times("VE", t_min, self.t_max)
        self.sigma_min, self.sigma_max, self.t_min = sigma_min, sigma_max, t_min
        self.prior_scale = sigma_max

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (t * math.log(self.sigma_max / self.sigma_min)).exp()

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return (ratio / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class EDM(Kernel):
    r"""Kernel of EDM: time is the noise level, :math:`\alpha_t = 1, \sigma_t = t`.

    Args:
        sigma_min: Smallest noise level.
        sigma_max: Largest noise level; also the scale of the starting noise.

    Raises:
        UserError: noise levels out of order.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        _check_times("EDM", sigma_min, sigma_max)
        self.t_min, self.t_max, self.prior_scale = sigma_min, sigma_max, sigma_max

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return ratio


class Cosine(Kernel):
    r"""Variance-preserving kernel with a cosine signal scale.

    .. math:: \alpha_t = \frac{\cos(\frac{\pi}{2} \frac{t + s}{1 + s})}{\cos(\frac{\pi}{2} \frac{s}{1 + s})},
              \qquad \sigma_t^2 = 1 - \alpha_t^2

    Args:
        offset: :math:`s \ge 0`, keeps the noise level near the data from vanishing.
        t_min: Smallest time.
        t_max: Largest time, below 1, where the signal would vanish (0.9946 in Lu et al. 2022).

    Raises:
        UserError: negative offset, or times out of order.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """

    def __init__(self, offset: float = 0.008, t_min: float = 1e-3, t_max: float = 0.9946) -> None:
        if offset < 0:
            raise UserError(f"Cosine needs offset >= 0, got {offset:g}")
        _check_times("Cosine", t_min, t_max, highest=0.99999)
        self.offset, self.t_min, self.t_max = offset, t_min, t_max
        self._start = offset / (1 + offset) * (math.pi / 2)
        self._log_cos_start = math.log(math.cos(self._start))

    def _angle(self, t: Tensor) -> Tensor:
        return (t + self.offset) / (1 + self.offset) * (math.pi / 2)

    def log_alpha(self, t: Tensor) -> Tensor:
        return self._angle(t).cos().log() - self._log_cos_start

    def sigma(self, t: Tensor) -> Tensor:
        start, angle = self._start, self._angle(t)
        return ((angle - start).sin() * (angle + start).sin()).sqrt() / math.cos(start)

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        start = self._start
        sine_squared = (math.sin(start) ** 2 + ratio**2) / (1 + ratio**2)
        return torch.asin(sine_squared.sqrt()) * 2 / math.pi * (1 + self.offset) - self.offset


class Flow(Kernel):
    r"""Straight-line kernel of flow matching: :math:`\alpha_t = 1 - t, \sigma_t = t`.

    Time stops a little short of 1, where no signal is left and the ratio has no value.

    Args:
        t_min: Smallest time; time ends at 1 - t_min.

    Raises:
        UserError: t_min outside (0, 0.5).

    Source: Lipman et al. 2023, arXiv:2210.02747, section 4.1 (optimal-transport path, time reversed).
    """

    def __init__(self, t_min: float = 1e-3) -> None:
        _check_times("Flow", t_min, 1 - t_min, highest=1.0)
        self.t_min, self.t_max = t_min, 1 - t_min

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        return ratio / (1 + ratio)
