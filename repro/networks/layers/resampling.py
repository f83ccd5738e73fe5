"""Halving and doubling the image size: mean and nearest neighbour, FIR filters, and convolutions around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import UserError
from repro.networks.layers.basic import convolution, initialise

__all__ = ["DownConv", "Downsample", "UpConv", "Upsample", "check_filter"]


def check_filter(taps: Sequence[float] | None) -> tuple[float, ...] | None:
    """Returns the taps of a separable resampling filter, or None for "no filter".

    Raises:
        UserError: fewer than two taps, not symmetric, or with sum 0.

    Example:
        >>> check_filter([1, 3, 3, 1])
        (1.0, 3.0, 3.0, 1.0)
    """
    if taps is None:
        return None
    taps = tuple(float(tap) for tap in taps)
    if len(taps) < 2 or taps != taps[::-1] or sum(taps) == 0:
        raise UserError(
            f"resample_filter is {list(taps)}; give two or more symmetric taps with a sum other than 0, "
            "such as [1, 1] (mean and nearest neighbour) or [1, 3, 3, 1]"
        )
    return taps


def _is_box(taps: Sequence[float] | None) -> bool:
    return taps is None or (len(taps) == 2 and taps[0] == taps[1])


def _kernel(taps: Sequence[float]) -> Tensor:
    line = torch.tensor(taps, dtype=torch.float32)
    return (torch.outer(line, line) / line.sum().square())[None, None]


class _Filtered(nn.Module):
    """Holds the two-dimensional kernel of a separable filter with sum 1; not part of the state dict."""

    def __init__(self, taps: Sequence[float] | None, always: bool = False) -> None:
        super().__init__()
        self.box = _is_box(taps)
        needed = taps is not None if always else not self.box
        self.register_buffer("kernel", _kernel(taps) if taps is not None and needed else None, persistent=False)

    def _per_channel(self, x: Tensor) -> Tensor:
        return self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)


class Downsample(_Filtered):
    """Halves height and width: every channel is filtered and every second pixel kept, zeros outside the image.

    Args:
        taps: Filter taps; [1, 1] or None is the mean of 2 x 2 pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to (B, C, H/2, W/2)."""
        if self.box:
            return F.avg_pool2d(x, 2)
        total = self.kernel.shape[-1] - 2
        before, after = (total + 1) // 2, total // 2
        if before == after:
            return F.conv2d(x, self._per_channel(x), stride=2, padding=before, groups=x.shape[1])
        return F.conv2d(F.pad(x, (before, after) * 2), self._per_channel(x), stride=2, groups=x.shape[1])


class Upsample(_Filtered):
    """Doubles height and width: zeros between the pixels, then every channel is filtered with gain 4.

    Args:
        taps: Filter taps; [1, 1] or None repeats every pixel 2 x 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to (B, C, 2H, 2W)."""
        if self.box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        size = self.kernel.shape[-1]
        x = F.conv_transpose2d(x, self._per_channel(x) * 4, stride=2, padding=(size - 2) // 2, groups=x.shape[1])
        return x[..., : x.shape[-2] - size % 2, : x.shape[-1] - size % 2]


class DownConv(_Filtered):
    """A 3 x 3 convolution that halves the image size.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        taps: Filter in front of the convolution, both padded with zeros once, at the beginning. None: no filter, the
            convolution has stride 2.
        symmetric: Without a filter, whether one row and column of zeros go on each side (ADM) or on the lower and
            right side only (DDPM).
        scheme: Initialisation, see :func:`repro.networks.layers.basic.initialise`.
    """

    def __init__(
        self, inputs: int, outputs: int, taps: Sequence[float] | None, symmetric: bool = False, scheme: str = "xavier"
    ) -> None:
        super().__init__(taps, always=True)
        padding = 1 if taps is None and symmetric else 0
        self.conv = initialise(nn.Conv2d(inputs, outputs, 3, stride=2, padding=padding), scheme)
        self.symmetric = symmetric

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        if self.kernel is None:
            return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))
        total = self.kernel.shape[-1]
        x = F.pad(x, ((total + 1) // 2, total // 2) * 2)
        return self.conv(F.conv2d(x, self._per_channel(x), groups=x.shape[1]))


class UpConv(nn.Module):
    """Doubling of the image size followed by a 3 x 3 convolution.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        taps: Filter of the doubling, see :class:`Upsample`.
        scheme: Initialisation, see :func:`repro.networks.layers.basic.initialise`.
    """

    def __init__(self, inputs: int, outputs: int, taps: Sequence[float] | None, scheme: str = "xavier") -> None:
        super().__init__()
        self.up = Upsample(taps)
        self.conv = convolution(inputs, outputs, 3, scheme)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        return self.conv(self.up(x))
