"""Drawings of measurements: curves over any axis, and maps of planes; plain functions to matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from repro.plots.figures import ACCENT, EMPTY, FAINT, INK, SCALE, new_figure, put_title, show_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Panel", "line_chart", "plane_maps"]

_COLOURS = ("#1f5a94", "#c2571a", "#3b7d4f", "#7b4b94", "#a8862b", "#5b6770", "#b23a5a")
_REGIONS = ("#1f5a94", "#c2571a", "#3b7d4f")


@dataclass(frozen=True)
class Curve:
    """One curve of a panel.

    Attributes:
        name: Its name.
        places: Along the axis, (n,).
        values: There, (n,).
        low: Lower end of a band, or None.
        high: Upper end of it.
        dashed: For references.
    """

    name: str
    places: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves on common axes.

    Attributes:
        curves: The curves, in the order of their colours.
        title: Above the panel.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        scales: Of the horizontal and the vertical axis.
        limits: Of the vertical axis, or None.
    """

    curves: Sequence[Curve]
    title: str
    across: str
    up: str
    scales: tuple[Literal["linear", "log"], Literal["linear", "log"]] = ("log", "linear")
    limits: tuple[float, float] | None = None


def line_chart(panels: Sequence[Panel], title: str, subtitle: str = "") -> Figure:
    """Panels of curves beside each other; neighbours with the same names share one list of them.

    Args:
        panels: From left to right.
        title: One line.
        subtitle: A second, fainter line.
    """
    named = [[curve.name for curve in panel.curves] for panel in panels]
    listed = [names != after for names, after in zip(named, [*named[1:], None], strict=True)]
    lists = [0.3 + shown * 0.075 * max(map(len, names)) for names, shown in zip(named, listed, strict=True)]
    width = sum(0.75 + 3.5 + names for names in lists) + 0.1
    figure, left, height = new_figure(width, 4.1), 0.0, 4.1
    for panel, room, shown in zip(panels, lists, listed, strict=True):
        left += 0.75
        axes = figure.add_axes((left / width, 0.6 / height, 3.5 / width, 2.45 / height))
        _draw_panel(axes, panel, shown)
        left += 3.5 + room
    put_title(figure, title, subtitle)
    return figure


def _draw_panel(axes: Axes, panel: Panel, listed: bool) -> None:
    shades = iter(_COLOURS * 4)
    for line, curve in enumerate(panel.curves):
        colour = FAINT if curve.dashed else next(shades)
        style = {"linestyle": (0, (4, 3)), "linewidth": 1.2} if curve.dashed else {"linewidth": 1.7}
        axes.plot(curve.places, curve.values, color=colour, **style)
        if not curve.dashed and len(curve.places) <= 20:
            axes.plot(curve.places, curve.values, "o", color=colour, markersize=3)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.places, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        if listed:
            axes.text(1.03, 1 - 0.09 * line, curve.name, transform=axes.transAxes, va="top", fontsize=8.5, color=colour)
    axes.set_xscale(panel.scales[0])
    axes.set_yscale(panel.scales[1])
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.set_title(panel.title, fontsize=9, color=INK, loc="left")
    axes.set_xlabel(panel.across, fontsize=8.5, color=FAINT)
    axes.set_ylabel(panel.up, fontsize=8.5, color=FAINT)
    axes.tick_params(which="both", length=0, labelsize=8, labelcolor=FAINT)
    axes.grid(color=EMPTY)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def plane_maps(
    regions: Sequence[np.ndarray], strengths: Sequence[np.ndarray], slopes: Sequence[np.ndarray],
    corners: Sequence[np.ndarray], extent: tuple[float, float], names: Sequence[str], title: str, subtitle: str = "",
) -> Figure:  # fmt: skip
    """Maps of one plane of noises for several systems: regions above, slopes below, the corners' images at the side.

    Args:
        regions: Number of the corner or -1, (A, B) each; a goes up, b to the right.
        strengths: Similarity to the nearest corner, in [0, 1], (A, B) each: the depth of the colour.
        slopes: Slope of the map from noise to image, (A, B) each.
        corners: The three corners' images, uint8 (3, C, H, W) each.
        extent: Smallest and largest a, and b.
        names: Of the systems.
        title: One line.
        subtitle: A second, fainter line.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import LogLocator

    side, tile, gap, top, left = 1.9, 0.42, 0.45, 0.95, 0.75
    step = side + tile + 0.12 + gap
    width, height = left + len(names) * step + 0.55, top + 2 * (side + 0.25) + 0.35
    figure = new_figure(width, height)

    def axes_at(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / width, (height - y - high) / height, wide / width, high / height))

    norm = LogNorm(min(slope[slope > 0].min() for slope in slopes), max(slope.max() for slope in slopes))
    style = {"origin": "lower", "extent": (*extent, *extent), "interpolation": "nearest"}
    colours = LinearSegmentedColormap.from_list("slope", SCALE)
    for place, name in enumerate(names):
        start = left + place * step
        above, below = (axes_at(start, top + row * (side + 0.25), side, side) for row in (0, 1))
        above.imshow(_coloured(regions[place], strengths[place]), **style)
        picture = below.imshow(slopes[place], norm=norm, cmap=colours, **style)
        for axes in (above, below):
            axes.plot([0, 0, 1], [0, 1, 0], "o", color=INK, markersize=3, markerfacecolor="white")
            axes.set_xticks([0, 1], ["0", "b = 1"])
            axes.set_yticks([0, 1], ["0", "a = 1"])
            axes.tick_params(length=0, labelsize=7.5, labelcolor=FAINT)
            axes.spines[:].set_visible(False)
        above.set_title(name, fontsize=9, color=INK, loc="left")
        if place == 0:
            above.set_ylabel("image of which corner", fontsize=8.5, color=ACCENT)
            below.set_ylabel("slope to neighbours", fontsize=8.5, color=ACCENT)
        for corner in range(3):
            axes = axes_at(start + side + 0.06, top + corner * (tile + 0.08), tile, tile)
            show_tiles(axes, corners[place][None, corner : corner + 1])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(True)
            axes.spines[:].set(color=_REGIONS[corner], linewidth=2)
    edge = left + len(names) * step - gap - tile
    places = LogLocator(subs=(1, 2, 5))
    bar = figure.colorbar(picture, cax=axes_at(edge, top + side + 0.25, 0.1, side), ticks=places, format="{x:g}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0, labelsize=7.5, labelcolor=FAINT)
    bar.minorticks_off()
    put_title(figure, title, subtitle)
    return figure


def _coloured(regions: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """A map as RGB: the corner's colour, paler where the similarity is lower, white where there is no corner."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in _REGIONS])
    depth = np.where(regions >= 0, np.clip(strengths, 0, 1), 0.0)[..., None]
    return 1 - depth * (1 - palette[regions])
