r"""Parameterisations: what a network's output means, as pure formulas in :math:`\alpha_t` and :math:`\sigma_t`.

One object says what the network is shown (a scaled image and a noise level), how its output F becomes the denoised
image :math:`\hat x_0`, and which output would have been right, which is the training target. The squared error between
output and target, times :meth:`Parameterization.loss_weight`, is the training loss of every parameterisation.

``alpha`` and ``sigma`` are tensors that multiply images: shape () or (B, 1, 1, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repro.errors import UserError
from repro.registry import Plugin

__all__ = [
    "X0",
    "ConsistencyPreconditioning",
    "EDMPreconditioning",
    "Eps",
    "Parameterization",
    "Score",
    "V",
    "Velocity",
    "X0AndEps",
]


class Parameterization(Plugin, ABC):
    r"""Base of the parameterisations.

    The network sees the noise level ``condition_scale * c + condition_shift``, where c is the time
    (``condition="time"``) or :math:`\log(\sigma_t / \alpha_t)` (``condition="log_ratio"``).

    Args:
        condition: What the noise level given to the network measures.
        condition_scale: Its factor; by default 999 for the time (Song et al. 2021) and 1/4 for the logarithm of the
            ratio (Karras et al. 2022). DDPM's step number is ``condition_scale=1000, condition_shift=-1``.
        condition_shift: Added to it.
        unit_input: Scale the network's input to unit variance, for kernels that do not keep the variance.

    Attributes:
        outputs: Channels of the network's output, in units of the images'.

    Raises:
        UserError: unknown condition.
    """

    outputs: ClassVar[int] = 1

    def __init__(
        self,
        condition: Literal["time", "log_ratio"] = "time",
        condition_scale: float | None = None,
        condition_shift: float = 0.0,
        unit_input: bool = False,
    ) -> None:
        if condition not in ("time", "log_ratio"):
            raise UserError(f"condition is {condition!r}; it is 'time' or 'log_ratio'")
        if condition_scale is None:
            condition_scale = 999.0 if condition == "time" else 0.25
        self.condition, self.condition_scale, self.condition_shift = condition, condition_scale, condition_shift
        self.unit_input = unit_input

    def noise_level(self, t: Tensor, log_ratio: Tensor) -> Tensor:
        """Computes the noise level that the network is given."""
        return (t if self.condition == "time" else log_ratio) * self.condition_scale + self.condition_shift

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor | float:
        r"""Computes :math:`c_{in}`, the factor of the network's input."""
        return (alpha**2 + sigma**2).rsqrt() if self.unit_input else 1.0

    @abstractmethod
    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Computes the denoised image :math:`\hat x_0` that an output means."""

    def to_eps(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Computes the noise :math:`(x_t - \alpha_t \hat x_0) / \sigma_t` that an output means."""
        return (x_t - alpha * self.to_x_0(output, x_t, alpha, sigma)) / sigma

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Computes the output that would be right: :meth:`to_x_0` maps it to ``x_0``."""

    def loss_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor | float:
        """Computes the factor of the squared error between output and target."""
        return 1.0


class Eps(Parameterization):
    r"""The network predicts the noise: :math:`\hat x_0 = (x_t - \sigma_t F) / \alpha_t`.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * output) / alpha

    def to_eps(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps


class X0(Parameterization):
    r"""The network predicts the clean image: :math:`\hat x_0 = F`."""

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_0


class V(Parameterization):
    r"""The network predicts :math:`v = \alpha_t \epsilon - \sigma_t x_0`.

    .. math:: \hat x_0 = (\alpha_t x_t - \sigma_t F) / (\alpha_t^2 + \sigma_t^2)

    Source: Salimans & Ho 2022, arXiv:2202.00512, section 4.
    """

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * eps - sigma * x_0


class X0AndEps(Parameterization):
    r"""The network predicts the clean image and, in further channels, the noise; each counts where it is the surer.

    .. math:: \hat x_0 = w F_x + (1 - w) (x_t - \sigma_t F_\epsilon) / \alpha_t,
              \qquad w = \sigma_t^2 / (\alpha_t^2 + \sigma_t^2)

    The network has twice the channels of the images (``out_channels``).

    Source: Salimans & Ho 2022, arXiv:2202.00512, section 4, "predicting both".
    """

    outputs: ClassVar[int] = 2

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        image, noise = output.chunk(2, dim=1)
        variance = alpha**2 + sigma**2
        return (sigma**2 * image + alpha * (x_t - sigma * noise)) / variance

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([x_0, eps], dim=1)


class Velocity(Parameterization):
    r"""The network predicts :math:`\epsilon - x_0`: :math:`\hat x_0 = (x_t - \sigma_t F) / (\alpha_t + \sigma_t)`.

    Source: Lipman et al. 2023, arXiv:2210.02747, eq. 23, time reversed.
    """

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * output) / (alpha + sigma)

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps - x_0


class Score(Parameterization):
    r"""The network predicts the score: :math:`\hat x_0 = (x_t + \sigma_t^2 F) / \alpha_t`.

    The squared error is weighted by :math:`\sigma_t^2`, which makes the loss the one on the noise.

    Source: Song et al. 2021, arXiv:2011.13456, eq. 7 and appendix C.
    """

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t + sigma**2 * output) / alpha

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return -eps / sigma

    def loss_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma**2


class EDMPreconditioning(Parameterization):
    r"""The preconditioning of EDM, on the unscaled image :math:`x_t / \alpha_t` of any kernel.

    With :math:`r = \sigma_t / \alpha_t` and :math:`\sigma_d` the standard deviation of the data,

    .. math:: \hat x_0 = c_{skip} \frac{x_t}{\alpha_t} + c_{out} F\Big(c_{in} \frac{x_t}{\alpha_t}\Big), \quad
        c_{skip} = \frac{\sigma_d^2}{r^2 + \sigma_d^2}, \;
        c_{out} = \frac{r \sigma_d}{\sqrt{r^2 + \sigma_d^2}}, \;
        c_{in} = \frac{1}{\sqrt{r^2 + \sigma_d^2}}

    The loss on F has unit weight, on :math:`\hat x_0` EDM's weight :math:`(r^2 + \sigma_d^2) / (r \sigma_d)^2`.

    Args:
        sigma_data: :math:`\sigma_d`, for images in [-1, 1].
        condition_scale: Factor of :math:`\log r`, the noise level that the network sees.

    Raises:
        UserError: ``sigma_data`` not above 0.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, sigma_data: float = 0.5, condition_scale: float = 0.25) -> None:
        if sigma_data <= 0:
            raise UserError(f"sigma_data is {sigma_data:g}; it is a standard deviation above 0, 0.5 for most images")
        super().__init__("log_ratio", condition_scale)
        self.sigma_data = sigma_data

    def skip_and_out(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        r"""Computes :math:`c_{skip}` and :math:`c_{out}` at a ratio."""
        variance = ratio**2 + self.sigma_data**2
        return self.sigma_data**2 / variance, ratio * self.sigma_data * variance.rsqrt()

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma**2 + (alpha * self.sigma_data) ** 2).rsqrt()

    def to_x_0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        skip, out = self.skip_and_out(sigma / alpha)
        return skip / alpha * x_t + out * output

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        ratio = sigma / alpha
        skip, out = self.skip_and_out(ratio)
        return ((1 - skip) * x_0 - skip * ratio * eps) / out


class ConsistencyPreconditioning(EDMPreconditioning):
    r"""EDM's preconditioning bent so that the function is the identity at the smallest noise level.

    With :math:`\epsilon` the smallest ratio and r, :math:`\sigma_d`, :math:`c_{in}` as in EDM's,

    .. math:: c_{skip} = \frac{\sigma_d^2}{(r - \epsilon)^2 + \sigma_d^2}, \qquad
        c_{out} = \frac{(r - \epsilon)\, \sigma_d}{\sqrt{r^2 + \sigma_d^2}}

    so :math:`\hat x_0 = x_t / \alpha_t` at :math:`r = \epsilon`, whatever the network answers: the boundary condition
    of a consistency function. As a plain denoiser it is trained with EDM's weight on :math:`\hat x_0`, which is
    :math:`(1 - \epsilon / r)^2` on F; no output is right where none matters, there the target is 0.

    Args:
        sigma_data: :math:`\sigma_d`, for images in [-1, 1].
        condition_scale: Factor of :math:`\log r`, the noise level that the network sees; 250 in the authors' release.
        ratio_min: :math:`\epsilon`, the ratio at the kernel's ``t_min``.

    Raises:
        UserError: ``sigma_data`` or ``ratio_min`` not above 0.

    Example:
        >>> import torch
        >>> one, level, x = torch.ones(1), torch.tensor([0.002]), torch.tensor([0.75])
        >>> ConsistencyPreconditioning().to_x_0(one, x, one, level).item()
        0.75

    Source: Song et al. 2023, arXiv:2303.01469, appendix C.
    """

    def __init__(self, sigma_data: float = 0.5, condition_scale: float = 0.25, ratio_min: float = 0.002) -> None:
        super().__init__(sigma_data, condition_scale)
        if ratio_min <= 0:
            raise UserError(f"ratio_min is {ratio_min:g}; it is a noise level above 0, the kernel's smallest")
        self.ratio_min = ratio_min

    def skip_and_out(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        above, variance = ratio - self.ratio_min, self.sigma_data**2
        return variance / (above**2 + variance), above * self.sigma_data * (ratio**2 + variance).rsqrt()

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return super().target(x_0, eps, alpha, sigma).masked_fill(sigma / alpha == self.ratio_min, 0.0)

    def loss_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (1 - self.ratio_min * alpha / sigma) ** 2
