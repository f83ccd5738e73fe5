"""Matrices of rates as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repro.plots.style import FAINT, INK, colour_scale, new_figure, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat_map"]

_MOST_NUMBERS = 24  # systems; beyond, cells are too small to read and the colours alone must do


def heat_map(
    values: np.ndarray,
    names: Sequence[str],
    title: str,
    subtitle: str = "",
    below: np.ndarray | None = None,
    label: str = "share of noises",
) -> Figure:
    """Draws a square matrix of rates, with its numbers up to 24 systems.

    Args:
        values: Rates in [0, 1], shape (K, K); the part above the diagonal is drawn.
        names: Of the K systems.
        title: One line.
        subtitle: Fainter text, for descriptor, threshold, n and data.
        below: Rates drawn below the diagonal instead of the same ones again, (K, K): a control, for example.
        label: What a cell is, beside the colour bar.
    """
    count = len(names)
    shown = np.where(np.tri(count, k=-1, dtype=bool), values.T if below is None else below, values).astype(float)
    np.fill_diagonal(shown, np.nan)
    cell = 0.62 if count <= 10 else 0.52 if count <= _MOST_NUMBERS else max(0.12, 12 / count)
    letters = 9 if count <= _MOST_NUMBERS else 6
    margin = text_width(list(names), letters)
    side = cell * count
    figure, body = new_figure(max(side + margin + 1.2, 5.2), side + 0.75 * margin + 0.3, title, subtitle)
    axes = body.subplots()
    picture = axes.imshow(shown, cmap=colour_scale(), vmin=0, vmax=1, interpolation="nearest")
    if count <= _MOST_NUMBERS:
        for (row, column), rate in np.ndenumerate(shown):
            if np.isfinite(rate):
                text = axes.text(
                    column, row, _short(rate), ha="center", va="center", fontsize=9 if count <= 10 else 7.5
                )
                text.set_color("white" if rate > 0.55 else INK)
                text.set_in_layout(False)
    axes.set_xticks(
        range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=letters, color=INK
    )  # fmt: skip
    axes.set_yticks(range(count), names, fontsize=letters, color=INK)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if count <= _MOST_NUMBERS else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = body.colorbar(picture, ax=axes, fraction=0.05, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.set_label(label, fontsize=8, color=FAINT)
    return figure


def _short(rate: float) -> str:
    return f"{rate:.2f}".removeprefix("0") if rate < 0.995 else "1.0"
