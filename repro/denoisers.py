r"""Denoisers: a network (or a formula) under a kernel and a parameterisation; gives :math:`x_0`, noise and score.

All of them answer the same question, the posterior mean :math:`E[x_0 | x_t]`, so samplers, tasks and studies never
ask where a denoiser came from.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.kernels import Kernel
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.registry import Plugin

__all__ = ["Denoiser", "NetworkDenoiser", "UnderKernel"]


class Denoiser(nn.Module, Plugin):
    r"""Base of the denoisers; one of them defines :meth:`denoise`.

    In all methods ``x_t`` are noisy images, shape (B, C, H, W); ``t`` is one time, shape (), or one for each image,
    shape (B,); ``labels`` are class numbers, int64 of shape (B,), or None. Results have the shape and dtype of ``x_t``.

    Attributes:
        kernel: The perturbation kernel that noised the images.
        image_shape: (C, H, W).
        num_classes: Number of classes that labels may name; 0 for an unconditional denoiser.
    """

    kernel: Kernel
    image_shape: tuple[int, int, int]
    num_classes: int = 0

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Posterior mean of the clean images."""

    def eps(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Predicted noise :math:`(x_t - \alpha_t \hat x_0) / \sigma_t`."""
        alpha, sigma = self.scales(x_t, t)
        return (x_t - alpha * self.denoise(x_t, t, labels)) / sigma

    def score(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Gradient of the log density, :math:`-\hat\epsilon / \sigma_t` (paper, lemma 1)."""
        return -self.eps(x_t, t, labels) / self.scales(x_t, t)[1]

    def scales(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\alpha_t` and :math:`\sigma_t` in the dtype of ``x_t``, shaped to multiply images."""
        t = t.to(x_t.device, torch.promote_types(t.dtype, x_t.dtype))
        alpha, sigma = self.kernel.alpha(t), self.kernel.sigma(t)
        if t.ndim:
            alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
        return alpha.to(x_t.dtype), sigma.to(x_t.dtype)


class NetworkDenoiser(Denoiser):
    """A network under a kernel and a parameterisation; the network runs in the dtype of its own parameters.

    Args:
        network: Maps (images, noise levels, labels) to images.
        kernel: The perturbation kernel.
        parameterization: What the network's output means.

    Raises:
        UserError: a network that does not say its ``image_shape``.
    """

    def __init__(self, network: Network, kernel: Kernel, parameterization: Parameterization) -> None:
        super().__init__()
        if not hasattr(network, "image_shape"):
            raise UserError(f"network {type(network).__name__} has no attribute image_shape (C, H, W); set it there")
        self.network, self.kernel, self.parameterization = network, kernel, parameterization
        self.image_shape = tuple(network.image_shape)
        self.num_classes = int(getattr(network, "num_classes", 0) or 0)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's raw output F, in the dtype of ``x_t``; channels beyond the image's (a variance) are cut."""
        t = t.to(x_t.device)
        level = self.parameterization.noise_level(t, -self.kernel.log_snr(t)).expand(len(x_t))
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), x_t.dtype)
        x = x_t * self.parameterization.input_scale(*self.scales(x_t, t))
        level = level.to(torch.promote_types(dtype, torch.float32))
        return self.network(x.to(dtype), level, labels)[:, : x_t.shape[1]].to(x_t.dtype)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.parameterization.to_x_0(self(x_t, t, labels), x_t, *self.scales(x_t, t))

    def eps(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.parameterization.to_eps(self(x_t, t, labels), x_t, *self.scales(x_t, t))


class UnderKernel(Denoiser):
    r"""A denoiser seen through another kernel: the same answers, at equal ratios, for images scaled the other way.

    .. math:: \hat x_0(x_t, t) = \hat x_0^{\,inner}\big(x_t\, \alpha'_{t'} / \alpha_t,\; t'\big), \qquad
              \sigma'_{t'} / \alpha'_{t'} = \sigma_t / \alpha_t

    So a network trained under one kernel is sampled under another, in its times and from its starting noise.

    Args:
        denoiser: The denoiser, under its own kernel (primed).
        kernel: The kernel under which it is to be used.
    """

    def __init__(self, denoiser: Denoiser, kernel: Kernel) -> None:
        super().__init__()
        self.denoiser, self.kernel = denoiser, kernel
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t = t.to(x_t.device, torch.promote_types(t.dtype, x_t.dtype))
        inner_t = self.denoiser.kernel.time_of_ratio(self.kernel.ratio(t))
        inner_alpha, alpha = self.denoiser.scales(x_t, inner_t)[0], self.scales(x_t, t)[0]
        return self.denoiser.denoise(x_t * (inner_alpha / alpha), inner_t, labels)
