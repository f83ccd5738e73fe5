"""Grids of images: the same noise in several systems, samples above their nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from repro.plots.style import FAINT, INK, new_figure, show_tiles, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["image_grid", "nearest_grid"]

_TILE = 0.62  # inches


def image_grid(
    images: Tensor | np.ndarray, columns: Sequence[str], rows: Sequence[str], title: str, subtitle: str = ""
) -> Figure:
    """Draws images in rows (noises) and columns (systems).

    Args:
        images: uint8, shape (rows, columns, C, H, W) with C of 1 or 3.
        columns: Name of each column.
        rows: Name of each row.
        title: One line.
        subtitle: Fainter text.
    """
    tiles = np.asarray(images)
    count, across, _, high, wide = tiles.shape
    tile = _TILE if across <= 12 else 0.84 * _TILE
    names = text_width(list(columns), 8.5)
    slanted = names > tile
    top = 0.75 * names if slanted else 0.2
    width = text_width(list(rows), 8) + tile * across + (0.75 * text_width([columns[-1]], 8.5) if slanted else 0) + 0.3
    figure, body = new_figure(max(width, 4.2), tile * count * high / wide + top + 0.2, title, subtitle)
    axes = body.subplots()
    show_tiles(axes, tiles)
    axes.set_yticks(range(count), rows, fontsize=8, color=FAINT)
    axes.xaxis.tick_top()
    turn = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {"ha": "center"}
    axes.set_xticks(range(across), columns, fontsize=8.5, color=INK, **turn)
    axes.tick_params(length=0)
    return figure


def nearest_grid(
    samples: Sequence[Tensor], neighbours: Sequence[Tensor], similarity: Sequence[Sequence[float]],
    names: Sequence[str], title: str, subtitle: str = "",
) -> Figure:  # fmt: skip
    """Draws samples of each system above their nearest training images, with the similarity below.

    Args:
        samples: For each system, uint8 (m, C, H, W).
        neighbours: The nearest training images, in the same shapes.
        similarity: For each system m numbers.
        names: Of the systems.
        title: One line.
        subtitle: Fainter text.
    """
    pairs, _, high, wide = samples[0].shape
    width = text_width(list(names), 8.5) + _TILE * pairs + 0.3
    height = len(names) * (2 * _TILE * high / wide + 0.34)
    figure, body = new_figure(max(width, 4.2), height, title, subtitle)
    for index, axes in enumerate(np.atleast_1d(body.subplots(len(names), 1))):
        show_tiles(axes, np.stack([np.asarray(samples[index]), np.asarray(neighbours[index])]))
        axes.set_yticks([0.5], [names[index]], fontsize=8.5, color=INK)
        axes.set_xticks(range(pairs), [f"{value:.2f}" for value in similarity[index]], fontsize=7.5, color=FAINT)
    return figure
