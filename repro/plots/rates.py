"""Rates with their intervals on one common scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repro.plots.style import ACCENT, INK, new_figure, plain_axes, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["rate_chart"]


def rate_chart(
    rates: Sequence[float], intervals: Sequence[tuple[float, float]], names: Sequence[str], title: str,
    subtitle: str = "", label: str = "",
) -> Figure:  # fmt: skip
    """Draws one rate a system with its interval, as dots on a scale from 0 to 1.

    Args:
        rates: In [0, 1].
        intervals: Lower and upper limits.
        names: Of the systems, from top to bottom.
        title: One line.
        subtitle: Fainter text.
        label: Name of the axis.
    """
    figure, body = new_figure(text_width(list(names), 9) + 4.6, 0.34 * len(names) + 0.65, title, subtitle)
    axes = body.subplots()
    places = np.arange(len(names))
    low, high = np.asarray(intervals, dtype=float).T
    axes.hlines(places, low, high, color=ACCENT, linewidth=2.5, alpha=0.45)
    axes.plot(rates, places, "o", color=ACCENT, markersize=6, clip_on=False)
    for row, rate in enumerate(rates):
        axes.text(1.04, row, f"{rate:.3f}", va="center", fontsize=8.5, color=INK)
    plain_axes(axes, across=label)
    axes.set_yticks(places, names, fontsize=9, color=INK)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", pad=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    return figure
