"""What all drawings share: colours, a page with title and subtitle, tiles of images, files."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from repro.files import write_whole
from repro.images import viewable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "ACCENT",
    "COLOURS",
    "EMPTY",
    "FAINT",
    "INK",
    "colour_scale",
    "keep_names",
    "new_figure",
    "plain_axes",
    "save_figure",
    "show_tiles",
    "text_width",
]

INK = "#1f2933"
"""Colour of text."""
FAINT = "#7b8794"
"""Colour of lesser text and of controls."""
EMPTY = "#e8ebee"
"""Colour of cells without a value, and of grid lines."""
ACCENT = "#1f5a94"
"""Colour of the one thing that counts."""
COLOURS = ("#1f5a94", "#c2571a", "#3b7d4f", "#7b4b94", "#a8862b", "#5b6770", "#b23a5a")
"""Colours of several curves, in their order."""

_SCALE = ("#f7f9fb", "#d3e3f1", "#9cc4e0", "#5a9bcb", "#2a6dab", "#0d3b70")
_INCHES_A_LETTER = 0.0105  # of DejaVu Sans, for each point of its size: longer than the mean, shorter than the longest


def colour_scale() -> Colormap:
    """Maps values from low to high to colours from light to dark; what is not finite is grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("value", _SCALE).with_extremes(bad=EMPTY)


def text_width(names: list[str] | tuple[str, ...], size: float) -> float:
    """Estimates how many inches the longest of some texts takes at a size in points."""
    return _INCHES_A_LETTER * size * max((len(name) for name in names), default=0)


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> tuple[Figure, SubFigure]:
    """Opens a white page with its title, outside matplotlib's global state.

    Args:
        width: Of the page, in inches.
        height: Of what is drawn below the title, in inches.
        title: One line.
        subtitle: Fainter text below it; it is broken into lines that fit.

    Returns:
        The figure, and the part of it to draw in, whose axes matplotlib lays out so that no text is cut.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = max(width, text_width([title], 12) + 0.4)
    lines = textwrap.wrap(subtitle, max(20, int((width - 0.4) / (0.8 * _INCHES_A_LETTER * 8.5))))
    head = 0.45 + 0.15 * len(lines)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height + head), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    top, body = np.asarray(figure.subfigures(2, 1, height_ratios=(head, height)))
    left, up = 0.2 / width, 1 - 0.15 / head
    top.text(left, up, title, ha="left", va="top", fontsize=11.5, fontweight="bold", color=INK)
    top.text(left, up - 0.25 / head, "\n".join(lines), ha="left", va="top", fontsize=8.5, color=FAINT)
    return figure, body


def plain_axes(axes: Axes, across: str = "", up: str = "") -> None:
    """Gives axes a faint grid, small labels and no frame.

    Args:
        axes: Which ones.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
    """
    axes.set_xlabel(across, fontsize=8.5, color=FAINT)
    axes.set_ylabel(up, fontsize=8.5, color=FAINT)
    axes.tick_params(which="both", length=0, pad=5, labelsize=8, labelcolor=FAINT)
    axes.grid(color=EMPTY)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draws images side by side as one picture, each in a cell of side 1 with a white frame.

    Args:
        axes: Where.
        tiles: uint8 (rows, columns, C, H, W), of which 1 or 3 channels are shown.
    """
    tiles = viewable(tiles)
    rows, columns, _, height, width = tiles.shape
    frame = max(1, round(max(height, width) * 0.06))
    sheet = np.full((rows, height + frame, columns, width + frame, 3), 255, dtype=np.uint8)
    near = frame // 2
    colour = np.broadcast_to(tiles.transpose(0, 3, 1, 4, 2), (rows, height, columns, width, 3))
    sheet[:, near : near + height, :, near : near + width] = colour
    sheet = sheet.reshape(rows * (height + frame), columns * (width + frame), 3)
    ratio = (height + frame) / (width + frame)
    axes.imshow(sheet, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), interpolation="nearest", aspect=ratio)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def keep_names(figure: Figure) -> None:
    """Keeps what stands in a figure from being read as formulas: names may have dollar signs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_text() and "\\mathdefault" not in text.get_text():  # a number that matplotlib wrote
            text.set_parse_math(False)


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Writes a figure as PNG, whole or not at all."""
    keep_names(figure)
    with write_whole(path) as file:
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")
