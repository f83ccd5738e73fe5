"""Rows and curves of what is compared again and again as one quantity grows: training images, or images seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from repro.comparison import Comparison
from repro.comparison.results import counted
from repro.plots import Curve
from repro.studies.report import controls_of, rate_cells

__all__ = ["copy_rows", "curve_of", "pair_rows"]


def pair_rows(compared: Comparison, **cells: Any) -> Iterator[dict[str, Any]]:
    """Yields RP and MAE of every pair, one row each.

    Args:
        compared: A comparison with its controls.
        cells: First cells of every row, for example ``N=64``.
    """
    rp, mae = compared.scores["RP"], compared.scores["MAE"]
    for one, other in rp.pairs():
        row = {**cells, "first": compared.names[one], "second": compared.names[other], **rate_cells(rp, one, other)}
        likeness = {"mae": mae.rates, "mae_control": controls_of(mae)}
        yield row | {key: float(rates[one, other]) for key, rates in likeness.items()}


def copy_rows(compared: Comparison, **cells: Any) -> Iterator[dict[str, Any]]:
    """Yields GL of every system whose training images are known, one row each; ``cells`` come first."""
    for name, each in zip(compared.names, compared.memorization, strict=True):
        if each is None:
            continue
        rate = counted(each.count, len(each.copies))
        row = {"system": name, "gl": rate["rate"], "low": rate["low"], "high": rate["high"], "n": compared.n}
        yield {**cells, **row}


def curve_of(name: str, rows: Sequence[Mapping[str, Any]], along: str, key: str) -> Curve:
    """Makes the curve of one column over another, with its interval."""
    places, values, low, high = ([row[column] for row in rows] for column in (along, key, "low", "high"))
    return Curve(name, places, values, low, high)
