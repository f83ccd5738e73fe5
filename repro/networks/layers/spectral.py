"""Spectral normalisation: layers whose weight is divided by an estimate of its largest singular value."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SpectralConv2d", "SpectralLinear", "convolution_of", "linear_of"]

_EPS = 1e-12


class _Spectral(nn.Module):
    r"""Mixin of a layer with a ``weight`` W, flattened to (outputs, rest) and used as :math:`W / \sigma`.

    .. math:: \sigma = u^\top W v, \qquad v \leftarrow W^\top u / \|W^\top u\|, \quad u \leftarrow W v / \|W v\|

    One such step is taken before every forward pass in training, none in evaluation; always in the weight's precision.

    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def _prepare(self) -> None:
        matrix = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=_EPS))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=_EPS))

    def sigma(self) -> Tensor:
        """The estimate of the largest singular value, shape ()."""
        return torch.dot(self.u.clone(), self.weight.flatten(1) @ self.v.clone())

    def normalised(self) -> Tensor:
        """The weight divided by the estimate, after one step of power iteration in training."""
        device = self.weight.device.type
        casts = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if casts else nullcontext():
            if self.training:
                with torch.no_grad():
                    matrix = self.weight.flatten(1)
                    self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=_EPS))
                    self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=_EPS))
            return self.weight / self.sigma()


class SpectralConv2d(nn.Conv2d, _Spectral):
    """A convolution with a spectrally normalised weight; arguments of ``torch.nn.Conv2d``."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, outputs, H', W')."""
        return self._conv_forward(x, self.normalised(), self.bias)


class SpectralLinear(nn.Linear, _Spectral):
    """A linear layer with a spectrally normalised weight; arguments of ``torch.nn.Linear``."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs) to (B, outputs)."""
        return F.linear(x, self.normalised(), self.bias)


def convolution_of(
    spectral: bool, inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 1.0
) -> nn.Conv2d:
    """Returns a convolution of odd kernel that keeps the size, or of even kernel that divides it by the stride.

    Args:
        spectral: Whether its weight is spectrally normalised.
        inputs: Channels in.
        outputs: Channels out.
        kernel: Pixels a side of the kernel.
        stride: Step of the kernel.
        gain: Factor on the Xavier-uniform bound.
    """
    layer = (SpectralConv2d if spectral else nn.Conv2d)(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def linear_of(spectral: bool, inputs: int, outputs: int) -> nn.Linear:
    """Returns a linear layer with Xavier-uniform weight, spectrally normalised or not."""
    layer = (SpectralLinear if spectral else nn.Linear)(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    return layer
