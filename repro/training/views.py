"""Edited views of images for copy detection: whole batches on tensors, every image with parameters of its own.

The edits are those of Pizzi et al. 2022 (arXiv:2202.10261, section 4.3) suited to small images: crop with rotation and
flip, overlay, colour, grey, blur, noise, compression. Each acts on an image with a probability; lengths are parts of
the image's side. Every draw comes from the default generator of the CPU, apart from the noise itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.devices import onto
from repro.errors import UserError, unknown

__all__ = ["DEFAULTS", "blur", "checked", "compress", "crop", "edited", "overlay", "recolour"]

DEFAULTS = {
    "area": 0.4,
    "rotation": 15.0,
    "flip": 0.5,
    "overlay": 0.2,
    "jitter": 0.4,
    "grey": 0.1,
    "blur": 0.5,
    "noise": 0.3,
    "compression": 0.3,
}
"""What :func:`edited` takes: smallest area of a crop, largest rotation in degrees, largest colour change, and the
probabilities of a flip, an overlay, grey, blur, noise and compression."""

_LUMA = (0.299, 0.587, 0.114)
_BLUR_RADIUS = 3
_QUANTA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def checked(options: Mapping[str, float] | None) -> dict[str, float]:
    """Checks the strengths of edits and fills in :data:`DEFAULTS` for those left out.

    Raises:
        UserError: an unknown name, or a value outside its range.

    Example:
        >>> checked({"flip": 0.0})["flip"]
        0.0
    """
    for name, value in (options or {}).items():
        if name not in DEFAULTS:
            raise unknown("view", name, DEFAULTS)
        most = 180.0 if name == "rotation" else 1.0
        least = 0.01 if name == "area" else 0.0
        if not least <= value <= most:
            raise UserError(f"views.{name} is {value}; give a number from {least:g} to {most:g}")
    return DEFAULTS | dict(options or {})


def edited(images: Tensor, settings: Mapping[str, float]) -> Tensor:
    """Makes one edited view of each image, shape of the images.

    Args:
        images: In [-1, 1], shape (B, C, H, W).
        settings: All of :data:`DEFAULTS`.
    """
    x = _where(settings["overlay"], images, overlay(images, images.roll(1, 0)))
    x = crop(x, settings["area"], settings["rotation"], settings["flip"])
    x = recolour(x, settings["jitter"], settings["grey"])
    x = _where(settings["blur"], x, blur(x, _uniform(x, 0.2, 1.2) * x.shape[-1] / 32))
    x = _where(settings["noise"], x, x + _uniform(x, 0.0, 0.2) * torch.randn_like(x))
    if settings["compression"] > 0:
        x = _where(settings["compression"], x, compress(x, _uniform(x, 0.3, 3.0)))
    return x.clamp(-1, 1)


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One number an image, shape (B, 1, 1, 1)."""
    return onto(images.device, low + (high - low) * torch.rand(len(images), 1, 1, 1), images.dtype)


def _constant(images: Tensor, values: Any) -> Tensor:
    """A tensor of fixed numbers beside the images."""
    return onto(images.device, torch.tensor(values, dtype=images.dtype))


def _where(probability: float, images: Tensor, changed: Tensor) -> Tensor:
    return torch.where(_uniform(images, 0.0, 1.0) < probability, changed, images)


def crop(images: Tensor, area: float, rotation: float, flip: float) -> Tensor:
    """A rotated, perhaps mirrored window of each image, at the image's size; beyond the border the edge goes on.

    Args:
        images: Shape (B, C, H, W).
        area: Smallest area of the window, in (0, 1]; each side is drawn from its root to 1.
        rotation: Largest rotation, in degrees.
        flip: Probability of a mirrored view.
    """
    wide, high = (_uniform(images, math.sqrt(area), 1.0).flatten() for _ in range(2))
    angle = (_uniform(images, -1.0, 1.0) * math.radians(rotation)).flatten()
    left = (1 - wide) * _uniform(images, -1.0, 1.0).flatten()
    top = (1 - high) * _uniform(images, -1.0, 1.0).flatten()
    side = torch.where(_uniform(images, 0.0, 1.0).flatten() < flip, -1.0, 1.0).to(images)
    rows = (wide * side * angle.cos(), -high * angle.sin(), left, wide * side * angle.sin(), high * angle.cos(), top)
    grid = F.affine_grid(torch.stack(rows, 1).unflatten(1, (2, 3)), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def overlay(images: Tensor, others: Tensor) -> Tensor:
    """Returns a rectangle of another image, a quarter to a half of the side, in its place over each image."""
    height, width = images.shape[2:]
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)

    def inside(corner: Tensor, length: int) -> Tensor:
        size = _uniform(images, 0.25, 0.5) * length
        start = _uniform(images, 0.0, 1.0) * (length - size)
        return (corner >= start) & (corner < start + size)

    return torch.where(inside(rows[:, None], height) & inside(columns, width), others, images)


def recolour(images: Tensor, jitter: float, grey: float) -> Tensor:
    """Changes brightness, contrast and, for three channels, saturation and hue; some images turn grey.

    Args:
        images: In [-1, 1], shape (B, C, H, W).
        jitter: Largest relative change; hues turn by at most a quarter of it.
        grey: Probability of a grey image.
    """
    x = images * (1 + _uniform(images, -jitter, jitter)) + _uniform(images, -jitter, jitter) / 2
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + _uniform(images, -jitter, jitter))
    if images.shape[1] != 3:
        return x
    angle = (_uniform(x, -jitter, jitter) * math.pi / 2).flatten()
    amount = (1 + _uniform(x, -jitter, jitter)).flatten()
    amount = torch.where(_uniform(x, 0.0, 1.0).flatten() < grey, 0.0, amount)
    luma, axis = _constant(x, _LUMA).expand(3, 3), x.new_ones(3, 3) / 3
    cross = _constant(x, ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))) / math.sqrt(3)
    one = torch.eye(3, dtype=x.dtype, device=x.device)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turn = axis + cos * (one - axis) + sin * cross
    mix = luma + amount[:, None, None] * (one - luma) @ turn
    return torch.einsum("boc,bchw->bohw", mix, x)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blurs images by a Gaussian, cut off at three pixels; the edge goes on beyond the border.

    Args:
        images: Shape (B, C, H, W).
        sigma: Standard deviation for each image, in pixels, B numbers.
    """
    batch, channels, height, width = images.shape
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.reshape(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(images, [_BLUR_RADIUS] * 4, mode="replicate").reshape(
        1, batch * channels, *(2 * _BLUR_RADIUS + n for n in (height, width))
    )
    x = F.conv2d(x, kernel[:, None, :, None], groups=batch * channels)
    x = F.conv2d(x, kernel[:, None, None, :], groups=batch * channels)
    return x.reshape(images.shape)


def compress(images: Tensor, strength: Tensor) -> Tensor:
    """Rounds the cosine coefficients of 8 x 8 blocks as JPEG does with its luminance table.

    Args:
        images: In [-1, 1], shape (B, C, H, W); sides that are no multiples of 8 are padded with their edge.
        strength: Factor of the table for each image, B numbers; 1 is quality 50.

    Source: ITU-T T.81 (1992), annexes A.3.3 and K.1.
    """
    height, width = images.shape[2:]
    x = F.pad(images * 127.5, [0, -width % 8, 0, -height % 8], mode="replicate")
    index = torch.arange(8, dtype=torch.float64)
    waves = torch.cos(math.pi / 8 * (index + 0.5) * index[:, None]) * math.sqrt(2 / 8)
    waves[0] /= math.sqrt(2)
    waves, quanta = onto(x.device, waves, x.dtype), _constant(x, _QUANTA) * strength.reshape(-1, 1, 1, 1, 1, 1)
    blocks = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    rounded = torch.round(waves @ blocks @ waves.T / quanta) * quanta
    x = (waves.T @ rounded @ waves).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return x[..., :height, :width] / 127.5
