"""Drawings of comparisons: plain functions from arrays to matplotlib figures, without global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from repro.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "EMPTY",
    "FAINT",
    "INK",
    "SCALE",
    "above",
    "beside",
    "curve_chart",
    "heat_map",
    "image_grid",
    "nearest_grid",
    "new_figure",
    "put_title",
    "rate_chart",
    "rendered",
    "save_figure",
    "save_pixels",
    "show_tiles",
]

INK = "#1f2933"
FAINT = "#7b8794"
EMPTY = "#e8ebee"
ACCENT = "#1f5a94"
SCALE = ("#f7f9fb", "#d3e3f1", "#9cc4e0", "#5a9bcb", "#2a6dab", "#0d3b70")
"""Colours of all drawings: text, lesser text, what is empty, what counts, and values from low to high."""


def heat_map(
    values: np.ndarray,
    names: Sequence[str],
    title: str,
    subtitle: str = "",
    below: np.ndarray | None = None,
    label: str = "share of noises",
) -> Figure:
    """A square matrix of rates with its numbers, for 2 to about 20 systems.

    Args:
        values: Rates in [0, 1], shape (K, K); the part above the diagonal is drawn.
        names: Of the K systems.
        title: One line.
        subtitle: A second, fainter line, for descriptor, threshold and n.
        below: Rates drawn below the diagonal instead of the same ones again, (K, K): a control, for example.
        label: What a cell is, beside the colour bar.
    """
    from matplotlib.colors import LinearSegmentedColormap

    count = len(names)
    shown = np.where(np.tri(count, k=-1, dtype=bool), values.T if below is None else below, values).astype(float)
    np.fill_diagonal(shown, np.nan)
    cell = 0.62 if count <= 10 else 0.52
    longest = max(len(name) for name in names)
    margin, bottom = 0.35 + 0.082 * longest, 0.25 + 0.062 * longest
    width, height = max(margin + cell * count + 1.25, 5.2), cell * count + bottom + 0.85
    figure = new_figure(width, height)
    axes = figure.add_axes((margin / width, bottom / height, cell * count / width, cell * count / height))
    colours = LinearSegmentedColormap.from_list("rate", SCALE).with_extremes(bad=EMPTY)
    picture = axes.imshow(shown, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    size = 9 if count <= 10 else 7.5
    for row in range(count):
        for column in range(count):
            rate = shown[row, column]
            if np.isfinite(rate):
                ink = "white" if rate > 0.55 else INK
                axes.text(column, row, _short(rate), ha="center", va="center", fontsize=size, color=ink)
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9, color=INK)
    axes.set_yticks(range(count), names, fontsize=9, color=INK)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    put_title(figure, title, subtitle)
    bar = figure.colorbar(
        picture,
        cax=figure.add_axes(
            ((margin + cell * count + 0.2) / width, bottom / height, 0.14 / width, cell * count / height)
        ),
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.set_label(label, fontsize=8, color=FAINT)
    return figure


def image_grid(
    images: Tensor | np.ndarray, columns: Sequence[str], rows: Sequence[str], title: str, subtitle: str = ""
) -> Figure:
    """Images in rows (noises) and columns (systems).

    Args:
        images: uint8, shape (rows, columns, C, H, W) with C of 1 or 3.
        columns: Name of each column.
        rows: Name of each row.
        title: One line.
        subtitle: A second, fainter line.
    """
    tiles = np.asarray(images)
    count, across = tiles.shape[:2]
    tile = 0.62 if across <= 12 else 0.52
    left = 0.25 + 0.085 * max(len(name) for name in rows)
    slanted = max(len(name) for name in columns) * 0.085 > tile
    top = 0.75 + (0.062 * max(len(name) for name in columns) + 0.1 if slanted else 0.2)
    overhang = 0.062 * len(columns[-1]) if slanted else 0.15
    width, height = max(left + tile * across + overhang, 4.2), tile * count + top + 0.12
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, 0.12 / height, tile * across / width, tile * count / height))
    show_tiles(axes, tiles)
    axes.set_yticks(range(count), rows, fontsize=8, color=FAINT)
    axes.xaxis.tick_top()
    turn = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {"ha": "center"}
    axes.set_xticks(range(across), columns, fontsize=8.5, color=INK, **turn)
    put_title(figure, title, subtitle)
    return figure


def nearest_grid(
    samples: Sequence[Tensor], neighbours: Sequence[Tensor], similarity: Sequence[Sequence[float]],
    names: Sequence[str], title: str, subtitle: str = "",
) -> Figure:  # fmt: skip
    """Samples of each system above their nearest training images, with the similarity below.

    Args:
        samples: For each system, uint8 (m, C, H, W).
        neighbours: The nearest training images, in the same shapes.
        similarity: For each system m numbers.
        names: Of the systems.
        title: One line.
        subtitle: A second, fainter line.
    """
    pairs, tile, gap, top = len(samples[0]), 0.62, 0.34, 0.85
    left = 0.25 + 0.085 * max(len(name) for name in names)
    width, height = left + tile * pairs + 0.15, len(names) * (2 * tile + gap) + top
    figure = new_figure(width, height)
    for place, name in enumerate(names):
        bottom = height - top - (place + 1) * (2 * tile + gap) + gap
        axes = figure.add_axes((left / width, bottom / height, tile * pairs / width, 2 * tile / height))
        show_tiles(axes, np.stack([np.asarray(samples[place]), np.asarray(neighbours[place])]))
        axes.set_yticks([0.5], [name], fontsize=8.5, color=INK)
        axes.set_xticks(range(pairs), [f"{value:.2f}" for value in similarity[place]], fontsize=7.5, color=FAINT)
    put_title(figure, title, subtitle)
    return figure


def rate_chart(
    rates: Sequence[float], intervals: Sequence[tuple[float, float]], names: Sequence[str], title: str,
    subtitle: str = "", label: str = "",
) -> Figure:  # fmt: skip
    """One rate a system with its interval, as dots on a common scale from 0 to 1.

    Args:
        rates: In [0, 1].
        intervals: Lower and upper limits.
        names: Of the systems, from top to bottom.
        title: One line.
        subtitle: A second, fainter line.
        label: Name of the axis.
    """
    left = 0.35 + 0.085 * max(len(name) for name in names)
    width, height = left + 4.4, 0.34 * len(names) + 1.45
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, 0.6 / height, 3.6 / width, 0.34 * len(names) / height))
    places = np.arange(len(names))
    low, high = np.asarray(intervals, dtype=float).T
    axes.hlines(places, low, high, color=ACCENT, linewidth=2.5, alpha=0.45)
    axes.plot(rates, places, "o", color=ACCENT, markersize=6, clip_on=False)
    for place, rate in enumerate(rates):
        axes.text(1.04, place, f"{rate:.3f}", va="center", fontsize=8.5, color=INK)
    axes.set_yticks(places, names, fontsize=9, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label, fontsize=8.5, color=FAINT)
    axes.tick_params(axis="x", length=0, labelsize=8, labelcolor=FAINT)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="x", color=EMPTY)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    put_title(figure, title, subtitle)
    return figure


def curve_chart(
    places: Sequence[float], rates: Sequence[np.ndarray], names: Sequence[str], title: str, subtitle: str = "",
    controls: Sequence[np.ndarray] = (), threshold: float | None = None, label: str = "similarity threshold",
) -> Figure:  # fmt: skip
    """Rates as curves over one axis, with a line where they are read off.

    Args:
        places: Where the curves are known, shape (t,).
        rates: One curve each, in [0, 1], shape (t,).
        names: Of the curves; written beside them when they are few.
        title: One line.
        subtitle: A second, fainter line.
        controls: Curves of the controls, drawn grey.
        threshold: Where the scores are taken, or None.
        label: Name of the axis.
    """
    from matplotlib.colors import LinearSegmentedColormap

    few = len(rates) <= 6
    width = 5.6 + (0.085 * max(len(name) for name in names) if few else 0)
    height = 3.6
    figure = new_figure(width, height)
    axes = figure.add_axes((0.65 / width, 0.6 / height, 4.4 / width, 2.2 / height))
    shades = np.linspace(0.35, 0.95, len(rates)) if few else np.full(len(rates), 0.7)
    colours = LinearSegmentedColormap.from_list("rate", SCALE)
    for curve in controls:
        axes.plot(places, curve, color=FAINT, linewidth=1, alpha=0.6 if few else 0.15)
    for curve, shade in zip(rates, shades, strict=True):
        axes.plot(places, curve, color=colours(shade), linewidth=1.8 if few else 1, alpha=1 if few else 0.35)
    if few:
        for line, (name, shade) in enumerate(zip(names, shades, strict=True)):
            axes.text(
                1.04, 1 - 0.1 * line, name, transform=axes.transAxes, va="top", fontsize=8.5, color=colours(shade)
            )
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(min(places), max(places))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(label, fontsize=8.5, color=FAINT)
    axes.set_ylabel("share of noises", fontsize=8.5, color=FAINT)
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    axes.grid(color=EMPTY)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    put_title(figure, title, subtitle)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with write_whole(path) as file:
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")


def rendered(figure: Figure, dpi: int = 110) -> np.ndarray:
    """A figure as pixels, uint8 (H, W, 3)."""
    figure.set_dpi(dpi)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def above(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of pixels, uint8 (H, W, 3), one above the other on white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_white(picture, picture.shape[0], width) for picture in pictures])


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of pixels, uint8 (H, W, 3), side by side on white."""
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate([_on_white(picture, height, picture.shape[1]) for picture in pictures], axis=1)


def save_pixels(picture: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes pixels, uint8 (H, W, 3), as PNG, whole or not at all."""
    from PIL import Image

    with write_whole(path) as file:
        Image.fromarray(picture).save(file, format="png")


def _on_white(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = height - picture.shape[0], width - picture.shape[1]
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), constant_values=255)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of a size in inches, outside matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def put_title(figure: Figure, title: str, subtitle: str) -> None:
    """Title and fainter subtitle at the top left; they take 0.6 inches."""
    width, height = figure.get_size_inches()
    left = 0.2 / width
    figure.text(left, 1 - 0.2 / height, title, ha="left", va="top", fontsize=11.5, fontweight="bold", color=INK)
    figure.text(left, 1 - 0.44 / height, subtitle, ha="left", va="top", fontsize=8.5, color=FAINT)


def _short(rate: float) -> str:
    return f"{rate:.2f}".removeprefix("0") if rate < 0.995 else "1.0"


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """One picture of all tiles, uint8 (rows, columns, C, H, W), each in a cell of side 1 with a white frame."""
    rows, columns, channels, height, width = tiles.shape
    frame = max(1, round(max(height, width) * 0.06))
    sheet = np.full((rows, height + frame, columns, width + frame, 3), 255, dtype=np.uint8)
    near = frame // 2
    colour = np.broadcast_to(tiles.transpose(0, 3, 1, 4, 2), (rows, height, columns, width, max(channels, 3)))[..., :3]
    sheet[:, near : near + height, :, near : near + width] = colour
    sheet = sheet.reshape(rows * (height + frame), columns * (width + frame), 3)
    axes.imshow(sheet, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), interpolation="nearest", aspect="auto")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
