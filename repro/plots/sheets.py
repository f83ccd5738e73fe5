"""Several figures on one sheet of pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repro.files import write_whole
from repro.plots.style import keep_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["above", "beside", "rendered", "save_pixels"]


def rendered(figure: Figure, dpi: int = 110) -> np.ndarray:
    """Draws a figure as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    keep_names(figure)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def above(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of pixels, uint8 (H, W, 3), one above the other on white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_white(picture, picture.shape[0], width) for picture in pictures])


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of pixels, uint8 (H, W, 3), side by side on white."""
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate([_on_white(picture, height, picture.shape[1]) for picture in pictures], axis=1)


def _on_white(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = height - picture.shape[0], width - picture.shape[1]
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), constant_values=255)


def save_pixels(picture: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes pixels, uint8 (H, W, 3), as PNG, whole or not at all."""
    from PIL import Image

    with write_whole(path) as file:
        Image.fromarray(picture).save(file, format="png")
