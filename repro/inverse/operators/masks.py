"""Inpainting: pixels that are hidden."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from repro.devices import onto
from repro.errors import UserError
from repro.inverse.operators.base import Operator

__all__ = ["CentreMask", "MaskFile", "RandomMask"]


class _Mask(Operator):
    """Multiplies images by a mask that is 1 where a pixel is seen and 0 where it is hidden."""

    def mask(self, height: int, width: int) -> Tensor:
        """The mask of an image size, float32 (H, W) on the CPU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return x * onto(x.device, self.mask(*x.shape[-2:]), x.dtype)


class CentreMask(_Mask):
    """Hides a square in the centre.

    Args:
        side: Side of the square as a part of the image's side, above 0 and below 1. The paper's easy mask is 16 of 32
            pixels (0.5), its hard one 25 of 32 (0.78125). The side in pixels is rounded, at least 1.

    Raises:
        UserError: ``side`` outside its range.

    Source: paper, appendix F.

    Example:
        >>> CentreMask(side=0.5).mask(4, 4).int().tolist()
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """

    def __init__(self, side: float = 0.5) -> None:
        if not 0 < side < 1:
            raise UserError(f"side is {side:g}; it is a part of the image's side, above 0 and below 1")
        self.side = side

    def mask(self, height: int, width: int) -> Tensor:
        mask = torch.ones(height, width)
        rows, columns = (max(1, round(self.side * size)) for size in (height, width))
        top, left = (height - rows) // 2, (width - columns) // 2
        mask[top : top + rows, left : left + columns] = 0
        return mask


class RandomMask(_Mask):
    """Hides a part of the pixels at random, the same ones in every image.

    Args:
        hidden: Part of the pixels that is hidden, above 0 and below 1.
        seed: Which pixels.

    Raises:
        UserError: ``hidden`` outside its range.
    """

    def __init__(self, hidden: float = 0.5, seed: int = 0) -> None:
        if not 0 < hidden < 1:
            raise UserError(f"hidden is {hidden:g}; it is a part of the pixels, above 0 and below 1")
        self.hidden, self.seed = hidden, seed

    def mask(self, height: int, width: int) -> Tensor:
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(self.seed))
        mask = torch.ones(height * width)
        mask[order[: round(self.hidden * height * width)]] = 0
        return mask.view(height, width)


class MaskFile(_Mask):
    """Hides what is black in a picture: pixels below half of the brightness are hidden, the others seen.

    Args:
        path: A picture of the images' size.

    Raises:
        UserError: no picture there, one that hides nothing or all, or images of another size.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not Path(path).is_file():
            raise UserError(f"no mask at {path}; give a picture, black where pixels are hidden")
        try:
            with Image.open(path) as picture:
                grey = picture.convert("L")
                pixels = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8).view(grey.height, grey.width)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError) as error:
            raise UserError(f"cannot read mask {path}: {' '.join(str(error).split())[:100]}") from error
        self.seen = (pixels >= 128).float()
        if self.seen.min() == self.seen.max():
            raise UserError(f"mask {path} {'hides nothing' if self.seen.min() else 'hides every pixel'}")

    def mask(self, height: int, width: int) -> Tensor:
        if tuple(self.seen.shape) != (height, width):
            rows, columns = self.seen.shape
            raise UserError(f"mask {self.path} is {rows}x{columns}, the images are {height}x{width}; resize the mask")
        return self.seen
