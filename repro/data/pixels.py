"""Pictures to arrays: one way to convert, crop and scale, so that a set is the same bytes wherever it comes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["COLOUR_MODES", "GREY_MODES", "fit_pixels", "to_picture"]

GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"})


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """A uint8 array (C, H, W) of 1 or 3 channels as a Pillow image."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def fit_pixels(picture: Image.Image, channels: int, resize: int | None = None) -> NDArray[np.uint8]:
    """A Pillow image as a uint8 array (C, H, W), converted and scaled.

    Grey is ITU-R 601 luma. Scaling crops the centre square first; down by a whole number it takes the mean of each
    block, down by another factor it is bicubic with antialiasing, up it is linear. All run in Pillow's integer
    arithmetic, so every machine gets the same bytes. Alpha is dropped.

    Args:
        picture: An 8-bit image of any mode.
        channels: 1 for grey, 3 for colour.
        resize: Side R of the (C, R, R) result, or None to keep the size.

    Example:
        >>> fit_pixels(to_picture(np.array([[[0, 4], [8, 12]]], dtype=np.uint8)), 1, resize=1).tolist()
        [[[6]]]
    """
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if resize is not None:
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        if width != height:
            picture = picture.crop((left, top, left + side, top + side))
        if side % resize == 0:
            picture = picture.reduce(side // resize)
        else:
            method = Image.Resampling.BICUBIC if side > resize else Image.Resampling.BILINEAR
            picture = picture.resize((resize, resize), method)
    width, height = picture.size
    pixels = np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
