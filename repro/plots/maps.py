"""Maps of a plane of noises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.plots.style import ACCENT, COLOURS, FAINT, INK, colour_scale, new_figure, show_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plane_maps"]

_REGIONS = COLOURS[:3]


def plane_maps(
    regions: Sequence[np.ndarray], strengths: Sequence[np.ndarray], slopes: Sequence[np.ndarray],
    corners: Sequence[np.ndarray], extent: tuple[float, float], names: Sequence[str], title: str, subtitle: str = "",
) -> Figure:  # fmt: skip
    """Draws maps of one plane of noises for several systems: regions above, slopes below, corners' images beside.

    Args:
        regions: Number of the corner or -1, (A, B) each; a goes up, b to the right.
        strengths: Similarity to the nearest corner, in [0, 1], (A, B) each: the depth of the colour.
        slopes: Slope of the map from noise to image, (A, B) each.
        corners: The three corners' images, uint8 (3, C, H, W) each.
        extent: Smallest and largest a, and b.
        names: Of the systems.
        title: One line.
        subtitle: Fainter text.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    norm = LogNorm(min(slope[slope > 0].min() for slope in slopes), max(slope.max() for slope in slopes))
    style: dict[str, Any] = {"origin": "lower", "extent": (*extent, *extent), "interpolation": "nearest"}
    figure, body = new_figure(0.9 + 2.8 * len(names), 4.6, title, subtitle)
    grid = body.add_gridspec(6, 2 * len(names), width_ratios=(1.9, 0.45) * len(names))
    for column, name in enumerate(names):
        above, below = (body.add_subplot(grid[3 * row : 3 * row + 3, 2 * column]) for row in (0, 1))
        above.imshow(_coloured(regions[column], strengths[column]), **style)
        picture = below.imshow(slopes[column], norm=norm, cmap=colour_scale(), **style)
        for axes in (above, below):
            axes.plot([0, 0, 1], [0, 1, 0], "o", color=INK, markersize=3, markerfacecolor="white")
            axes.set_xticks([0, 1], ["0", "b = 1"])
            axes.set_yticks([0, 1], ["0", "a = 1"])
            axes.tick_params(length=0, labelsize=7.5, labelcolor=FAINT)
            axes.spines[:].set_visible(False)
        above.set_title(name, fontsize=9, color=INK, loc="left")
        if column == 0:
            above.set_ylabel("image of which corner", fontsize=8.5, color=ACCENT)
            below.set_ylabel("slope to neighbours", fontsize=8.5, color=ACCENT)
        for corner, colour in enumerate(_REGIONS):
            axes = body.add_subplot(grid[corner, 2 * column + 1])
            show_tiles(axes, corners[column][None, corner : corner + 1])
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
            axes.spines[:].set(color=colour, linewidth=2)
    bar = body.colorbar(
        picture, ax=body.axes, ticks=LogLocator(subs=(1, 2, 5)), format="{x:g}", fraction=0.03, aspect=25
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0, labelsize=7.5, labelcolor=FAINT)
    bar.minorticks_off()
    return figure


def _coloured(regions: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """A map as RGB: the corner's colour, paler where the similarity is lower, white where there is no corner."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in _REGIONS])
    depth = np.where(regions >= 0, np.clip(strengths, 0, 1), 0.0)[..., None]
    return 1 - depth * (1 - palette[regions])
