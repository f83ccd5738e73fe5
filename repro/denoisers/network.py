"""A network as a denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser
from repro.devices import onto
from repro.errors import UserError
from repro.kernels import Kernel
from repro.networks import Network
from repro.parameterizations import Parameterization

__all__ = ["NetworkDenoiser"]


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
        channels, height, width = network.image_shape
        self.image_shape = (channels, height, width)
        self.num_classes = int(getattr(network, "num_classes", 0) or 0)
        self.guided_channels = getattr(network, "guided_channels", None)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Computes the network's raw output F, in the dtype of ``x_t``; channels beyond those that count (a variance)
        are cut."""
        t, options = onto(x_t.device, t) if t.ndim else t, {}
        level = self.parameterization.noise_level(t, -self.kernel.log_snr(t))
        dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), x_t.dtype)
        x = x_t * self.parameterization.input_scale(*self.scales(x_t, t))
        level = level.to(torch.promote_types(dtype, torch.float32))
        if not t.ndim and hasattr(self.network, "stage_of"):  # one time for all: its stage is known on the host
            options["stage"] = int(self.network.stage_of(level))
        level = onto(x_t.device, level).expand(len(x_t))
        channels = self.parameterization.outputs * x_t.shape[1]
        return self.network(x.to(dtype), level, labels, **options)[:, :channels].to(x_t.dtype)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.parameterization.to_x_0(self(x_t, t, labels), x_t, *self.scales(x_t, t))

    def eps(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.parameterization.to_eps(self(x_t, t, labels), x_t, *self.scales(x_t, t))
