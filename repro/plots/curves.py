"""Curves: rates by threshold, and measurements over any axis in panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from repro.plots.style import COLOURS, FAINT, INK, colour_scale, new_figure, plain_axes, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Panel", "curve_chart", "line_chart"]

_FEW = 6


def curve_chart(
    places: Sequence[float], rates: Sequence[np.ndarray], names: Sequence[str], title: str, subtitle: str = "",
    controls: Sequence[np.ndarray] = (), threshold: float | None = None, label: str = "similarity threshold",
) -> Figure:  # fmt: skip
    """Draws rates as curves over one axis, with a line where they are read off.

    Args:
        places: Where the curves are known, shape (t,).
        rates: One curve each, in [0, 1], shape (t,).
        names: Of the curves; written beside them when they are few.
        title: One line.
        subtitle: Fainter text.
        controls: Curves of the controls, drawn grey.
        threshold: Where the scores are taken, or None.
        label: Name of the axis.
    """
    from matplotlib.collections import LineCollection

    few = len(rates) <= _FEW
    figure, body = new_figure(5.2 + (text_width(list(names), 8.5) if few else 0), 2.9, title, subtitle)
    axes = body.subplots()
    shades = colour_scale()(np.linspace(0.35, 0.95, len(rates)) if few else np.full(len(rates), 0.7))

    def draw(curves: Sequence[np.ndarray], colours: object, width: float, alpha: float) -> None:
        lines = [np.column_stack([places, curve]) for curve in curves]
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=width, alpha=alpha))

    draw(controls, FAINT, 1, 0.6 if few else 0.15)
    draw(rates, shades, 1.8 if few else 1, 1 if few else 0.35)
    for line, (name, shade) in enumerate(zip(names, shades, strict=True) if few else ()):
        axes.text(1.04, 1 - 0.1 * line, name, transform=axes.transAxes, va="top", fontsize=8.5, color=shade)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(min(places), max(places))
    axes.set_ylim(0, 1.02)
    plain_axes(axes, label, "share of noises")
    return figure


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
    """Draws panels of curves beside each other; neighbours with the same names share one list of them.

    Args:
        panels: From left to right.
        title: One line.
        subtitle: Fainter text.
    """
    named = [[curve.name for curve in panel.curves] for panel in panels]
    listed = [names != after for names, after in zip(named, [*named[1:], None], strict=True)]
    lists = sum(text_width(names, 8.5) for names, shown in zip(named, listed, strict=True) if shown)
    figure, body = new_figure(4.3 * len(panels) + lists, 3.3, title, subtitle)
    for panel, axes, shown in zip(panels, np.atleast_1d(body.subplots(1, len(panels))), listed, strict=True):
        _draw_panel(axes, panel, shown)
    return figure


def _draw_panel(axes: Axes, panel: Panel, listed: bool) -> None:
    shades = iter(COLOURS * 4)
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
    plain_axes(axes, panel.across, panel.up)
