"""Pictures to arrays: one way to convert, crop and scale, so that a set is the same bytes wherever it comes from."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from repro.errors import UserError

__all__ = [
    "COLOUR_MODES",
    "GREY_MODES",
    "fit_array",
    "fit_pixels",
    "has_sixteen_bits",
    "is_transparent",
    "to_eight_bits",
    "to_picture",
    "turn_of",
    "upright_size",
]

GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = frozenset({5, 6, 7, 8})
_PNG_DEPTH = 24
"""Where a PNG file says how many bits a sample has."""


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """Turns a uint8 array (C, H, W) of 1 or 3 channels into a Pillow image."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def turn_of(picture: Image.Image) -> int:
    """Returns the EXIF orientation of an image, 1 (as stored) to 8: how a viewer turns or mirrors it.

    It is read from the header; the pixels are not decoded.
    """
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return 1  # Pillow turns TIFF itself; in a PNG it would decode the pixels to look for more
    turn = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return turn if turn in _TURNS else 1


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Returns the width and height as a viewer shows the image."""
    width, height = picture.size
    return (height, width) if turn_of(picture) in _SWAPPING else (width, height)


def is_transparent(picture: Image.Image) -> bool:
    """Says whether an image has an alpha channel or a transparent colour."""
    return picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info


def has_sixteen_bits(picture: Image.Image, data: bytes) -> bool:
    """Says whether an image file has 16 bits a sample."""
    return picture.mode.startswith("I;16") or (picture.format == "PNG" and data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10")


def to_eight_bits(data: bytes) -> Image.Image:
    """Returns an image file of 16 bits a sample as a Pillow image of 8: 65,535 becomes 255, rounded to nearest.

    Raises:
        UserError: values that all lie below 256, which would come out black: 8 bits kept in a file of 16.
    """
    with Image.open(io.BytesIO(data)) as picture:
        kind, pixels = picture.format, None if picture.mode in COLOUR_MODES else np.asarray(picture)
    if pixels is None or kind == "PNG":
        import torch
        from torchvision.io import ImageReadMode, decode_png  # Pillow keeps only the upper half of 16-bit colour

        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels = decode_png(raw, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    colour = (
        pixels[..., : -1 if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None] if pixels.ndim == 3 else pixels
    )
    if 0 < int(colour.max(initial=0)) < 256:
        raise UserError(
            f"has 16 bits a channel but no value above {int(colour.max())}, which is black; save it with 8 bits"
        )
    scaled = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(scaled, "LA") if scaled.ndim == 3 and scaled.shape[2] == 2 else Image.fromarray(scaled)


def fit_pixels(
    picture: Image.Image, channels: int, resize: int | None = None, background: int = 255
) -> NDArray[np.uint8]:
    """Turns a Pillow image into a uint8 array (C, H, W): as a viewer shows it, converted and scaled.

    It is turned as its EXIF orientation says, and what is transparent shows the background. Grey is ITU-R 601 luma.
    Scaling crops the centre square first; down by a whole number it takes the mean of each block, down by another
    factor it is bicubic with antialiasing, up it is linear. All run in Pillow's integer arithmetic, so every machine
    gets the same bytes.

    Args:
        picture: An 8-bit image of any mode.
        channels: 1 for grey, 3 for colour.
        resize: Side R of the (C, R, R) result, or None to keep the size.
        background: Grey level, 0 (black) to 255 (white), behind what is transparent.

    Example:
        >>> fit_pixels(to_picture(np.array([[[0, 4], [8, 12]]], dtype=np.uint8)), 1, resize=1).tolist()
        [[[6]]]
    """
    turn = turn_of(picture)
    if is_transparent(picture):
        picture = picture.convert("RGBA")
        behind = Image.new("RGBA", picture.size, (background, background, background, 255))
        picture = Image.alpha_composite(behind, picture)
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if turn != 1:
        picture = picture.transpose(_TURNS[turn])
    if resize is not None:
        picture = _scaled(picture, resize)
    width, height = picture.size
    pixels = np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def fit_array(image: NDArray[np.uint8], resize: int | None, grayscale: bool) -> NDArray[np.uint8]:
    """A uint8 array (C, H, W) of any number of channels, scaled (channel by channel) and turned grey (1 or 3 only)."""
    if len(image) in (1, 3):
        return fit_pixels(to_picture(image), 1 if grayscale else len(image), resize)
    return np.concatenate([fit_pixels(to_picture(channel[None]), 1, resize) for channel in image])


def _scaled(picture: Image.Image, resize: int) -> Image.Image:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if width != height:
        picture = picture.crop((left, top, left + side, top + side))
    if side % resize == 0:
        return picture.reduce(side // resize)
    return picture.resize((resize, resize), Image.Resampling.BICUBIC if side > resize else Image.Resampling.BILINEAR)
