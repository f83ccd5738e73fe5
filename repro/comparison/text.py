"""A comparison as tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from repro.comparison.results import Comparison, PairCounts, PairValues

__all__ = ["as_text", "condition", "gl_condition"]

_MOST_TESTS = 12
_MOST_CLASSES = 12


def condition(comparison: Comparison, score: PairCounts) -> str:
    """When two images count as alike, and how many were compared."""
    limits = {
        "RP": f"{comparison.descriptor['name']} > {comparison.threshold:g}, ",
        "MAE": f"mean difference < {comparison.mae_threshold:g} of 255, ",
        "Between RP": f"{comparison.descriptor['name']} > {comparison.threshold:g} for some class, ",
    }
    return f"{limits.get(score.name, '')}{sizes(comparison, score)}"


def sizes(comparison: Comparison, score: PairCounts) -> str:
    """How many pairs of images each rate is of."""
    if score.n > comparison.noises:
        return f"n = {score.n:,}: {comparison.noises:,} noises x {score.n // comparison.noises} classes"
    return f"n = {score.n:,}"


def gl_condition(comparison: Comparison) -> str:
    """When a sample counts as a copy, and how many samples there are."""
    most = max(len(bank) for bank in comparison.banks)
    return f"{comparison.descriptor['name']} > {comparison.threshold:g}, n = {most:,}"


def as_text(comparison: Comparison) -> str:
    """Matrices with intervals and chance level, classes, GL and tests, as tables for a terminal of any width."""
    from rich.console import Console

    tables = [_matrix(comparison, score) for score in comparison.scores.values()]
    tables += [_values(comparison, score) for score in comparison.values.values()]
    tables += [
        table
        for table in (_classes(comparison), _memorization(comparison), _tests(comparison))
        if table is not None and table.row_count
    ]
    for table in tables:
        table.title_justify = "left"
    plain = {"color_system": None, "highlight": False, "markup": False, "emoji": False}
    console = Console(width=10_000, record=True, file=io.StringIO(), **plain)
    width = max(console.measure(table).maximum for table in tables)
    console.width = max(width, 80)
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def _span(row: Mapping[str, Any], prefix: str = "") -> str:
    low, high = row[prefix + "low"], row[prefix + "high"]
    return "" if low is None else f"{low:.3f}-{high:.3f}"


def _cell(row: Mapping[str, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'rate']:.3f}\n{_span(row, prefix)}"


def _table(title: str, *columns: str, left: int = 1) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right")
    return table


def _matrix(comparison: Comparison, score: PairCounts) -> Table:
    """Above the diagonal the rate over its interval, below it the control's."""
    below = "" if score.control is None else "; below the diagonal: shuffled noises (chance)"
    table = _table(f"{score.name} ({condition(comparison, score)}; second line: 95 % interval{below})", "")
    cells = {(row["first"], row["second"]): row for row in comparison.table() if row["score"] == score.name}
    for name in comparison.names:
        table.add_column(name, justify="center", no_wrap=True)
    for first in comparison.names:
        line = [first]
        for second in comparison.names:
            above, under = cells.get((first, second)), cells.get((second, first))
            if above is not None:
                line.append(_cell(above))
            elif under is not None and "control_rate" in under:
                line.append(_cell(under, "control_"))
            else:
                line.append("" if under is not None else "-")
        table.add_row(*line)
    return table


def _values(comparison: Comparison, score: PairValues) -> Table:
    """Above the diagonal the values, below it those on shuffled noises, and those against training images beside."""
    below = "" if score.control is None else "; below the diagonal: shuffled noises"
    table = _table(f"{score.name} ({gl_condition(comparison).rsplit(', ')[-1]}{below})", "")
    for name in comparison.names:
        table.add_column(name, justify="right", no_wrap=True)
    if score.train is not None:
        table.add_column("training images", justify="right")
    values = score.values if score.control is None else np.triu(score.values) + np.tril(score.control, -1)
    for place, name in enumerate(comparison.names):
        line = values[place].tolist() + ([] if score.train is None else [score.train[place]])
        table.add_row(name, *("-" if np.isnan(value) else f"{value:.4g}" for value in line))
    return table


def _classes(comparison: Comparison) -> Table:
    rows = comparison.conditional_table()
    classes = sorted({row["class"] for row in rows if row["class"] != "mean"})
    many = len(classes) > _MOST_CLASSES
    heads = ["lowest class", "highest class"] if many else [f"class {label}" for label in classes]
    title = "Conditional scores (second line: 95 % interval)"
    table = _table(title, "score", "first", "second", "mean", *heads, left=3)
    for names, group in groupby(rows, key=lambda row: (row["score"], row["first"], row["second"])):
        *found, mean = group
        if many:
            found = [limit(found, key=lambda row: row["rate"]) for limit in (min, max)]
        table.add_row(*names, _cell(mean), *(_cell(row) for row in found))
    return table


def _memorization(comparison: Comparison) -> Table:
    title = f"GL: share of samples that are no copy of a training image ({gl_condition(comparison)})"
    table = _table(title, "system", "GL", "95 % interval", "not copied", "training images", "mean nearest")
    for row in comparison.memorization_table():
        counts = f"{row['count']:,} of {row['n']:,}", f"{row['train_size']:,}", f"{row['mean_nearest']:.3f}"
        table.add_row(row["system"], f"{row['rate']:.3f}", _span(row), *counts)
    return table


def _tests(comparison: Comparison) -> Table | None:
    """The paired tests, where they are few."""
    rows = comparison.paired_table()
    if len(rows) > _MOST_TESTS:
        return None
    title = "Is one pair more alike than the other, on the same noises? (McNemar's exact test; Holm over each score)"
    table = _table(
        title, "score", "first pair", "second pair", "difference", "95 % interval", "p", "adjusted p", left=3
    )
    for row in rows:
        pairs = (f"{row['system']} - {row[other]}" for other in ("first", "second"))
        numbers = f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}"
        table.add_row(row["score"], *pairs, *numbers, f"{row['p_value']:.2g}", f"{row['p_adjusted']:.2g}")
    return table
