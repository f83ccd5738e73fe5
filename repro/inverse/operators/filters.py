"""Resolution, blur and range: what a camera does to an image."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from repro.devices import onto
from repro.errors import UserError, check_at_least
from repro.inverse.operators.base import Operator

__all__ = ["Blur", "Downsample", "GaussianBlur", "HighDynamicRange", "MotionBlur"]

_TRUNCATE = 4.0


class Downsample(Operator):
    """Super-resolution: the mean of every block of ``factor`` x ``factor`` pixels.

    Args:
        factor: Side of the block, at least 2.

    Raises:
        UserError: ``factor`` too small, or an image side that it does not divide.
    """

    def __init__(self, factor: int = 2) -> None:
        check_at_least(2, factor=factor)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise UserError(f"images are {height}x{width}; factor {self.factor} does not divide that")
        return functional.avg_pool2d(x, self.factor)


class Blur(Operator):
    """Convolves every channel with one kernel, the image mirrored at its edges."""

    @abstractmethod
    def kernel(self) -> Tensor:
        """Returns the kernel, float64 (k, k) with k odd, of sum 1."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = onto(x.device, self.kernel(), x.dtype)
        reach = len(kernel) // 2
        if reach >= min(x.shape[-2:]):
            raise UserError(
                f"{type(self).__name__}: a kernel of {len(kernel)} pixels is too wide for images of "
                f"{x.shape[-2]}x{x.shape[-1]}; give a smaller size"
            )
        padded = functional.pad(x, [reach] * 4, mode="reflect")
        channels = x.shape[1]
        return functional.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)


def _check_odd(size: int) -> None:
    if size < 3 or size % 2 == 0:
        raise UserError(f"size is {size}; give an odd number of pixels, at least 3")


class GaussianBlur(Blur):
    """Blur by a Gaussian, its tails folded back at the kernel's edges (as SciPy's ``gaussian_filter`` of a point).

    Args:
        size: Side of the kernel in pixels, odd, at least 3.
        std: Standard deviation in pixels, above 0.

    Raises:
        UserError: a value outside its range, or a kernel wider than the images.
    """

    def __init__(self, size: int = 5, std: float = 1.0) -> None:
        _check_odd(size)
        if std <= 0:
            raise UserError(f"std is {std:g}; give pixels above 0")
        self.size, self.std = size, std

    def kernel(self) -> Tensor:
        reach = int(_TRUNCATE * self.std + 0.5)
        offsets = torch.arange(-reach, reach + 1)
        weights = (-(offsets.double() ** 2) / (2 * self.std**2)).exp()
        folded = (offsets + self.size // 2) % (2 * self.size)
        folded = torch.where(folded < self.size, folded, 2 * self.size - 1 - folded)
        line = torch.zeros(self.size, dtype=torch.float64).index_add(0, folded, weights / weights.sum())
        return torch.outer(line, line)


class MotionBlur(Blur):
    """Blur along a straight line.

    Args:
        size: Length of the line in pixels, odd, at least 3.
        angle: Direction in degrees, against the rows.

    Raises:
        UserError: a size outside its range, or a kernel wider than the images.
    """

    def __init__(self, size: int = 5, angle: float = 45.0) -> None:
        _check_odd(size)
        self.size, self.angle = size, angle

    def kernel(self) -> Tensor:
        offsets = torch.linspace(-1, 1, 8 * self.size + 1, dtype=torch.float64) * (self.size // 2)
        turned = math.radians(self.angle)
        kernel = torch.zeros(self.size, self.size, dtype=torch.float64)
        rows, columns = (-offsets * math.sin(turned)) + self.size // 2, (offsets * math.cos(turned)) + self.size // 2
        for row_shift in (0, 1):
            for column_shift in (0, 1):
                row, column = rows.floor() + row_shift, columns.floor() + column_shift
                share = (1 - (rows - row).abs()).clamp(min=0) * (1 - (columns - column).abs()).clamp(min=0)
                inside = (row < self.size) & (column < self.size)
                kernel.index_put_((row[inside].long(), column[inside].long()), share[inside], accumulate=True)
        return kernel / kernel.sum()


class HighDynamicRange(Operator):
    """Brightness beyond a range is cut off: :math:`y = clip(gain * x, -1, 1)`. Not linear.

    Args:
        gain: Above 1.

    Raises:
        UserError: ``gain`` outside its range.

    Source: Chung et al. 2023, arXiv:2209.14687, takes non-linear operators such as this one.
    """

    linear: ClassVar[bool] = False

    def __init__(self, gain: float = 2.0) -> None:
        if gain <= 1:
            raise UserError(f"gain is {gain:g}; give a number above 1")
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(-1, 1)
