"""A comparison as tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from repro.comparison import tables
from repro.comparison.remarks import remarks
from repro.comparison.results import PairCounts, PairValues, Results
from repro.files import printable

__all__ = ["as_text", "condition", "gl_condition"]

_MOST_COLUMNS = 12
_ENDS = 5
_MOST_TESTS = 12
_MOST_CLASSES = 12
_CHANCE = {"unseen_rate": "GL of unseen images", "noise_rate": "GL of noise"}


def condition(results: Results, score: PairCounts) -> str:
    """Says when two images count as alike, and how many were compared."""
    descriptor, about = results.descriptor["name"], results.conditions
    limits = {
        "RP": f"{descriptor} > {about.threshold:g}, ",
        "MAE": f"mean difference < {about.mae_threshold:g} of 255, ",
        "Between RP": f"{descriptor} > {about.threshold:g} for some class, ",
    }
    return f"{limits.get(score.name, '')}{_sizes(results, score)}"


def _sizes(results: Results, score: PairCounts) -> str:
    """How many pairs of images each rate is of."""
    if score.n > results.noises:
        return f"n = {score.n:,}: {results.noises:,} noises x {score.n // results.noises} classes"
    return f"n = {score.n:,}"


def gl_condition(results: Results) -> str:
    """Says when a sample counts as a copy, and how many samples there are."""
    most = max(len(bank) for bank in results.banks)
    return f"{results.descriptor['name']} > {results.threshold:g}, n = {most:,}"


def as_text(results: Results) -> str:
    """Writes out matrices with intervals and chance level, classes, GL and tests, as tables of any width."""
    scores = _matrix if len(results.names) <= _MOST_COLUMNS else _ends
    parts = [scores(results, score) for score in results.scores.values()]
    parts += [_values(results, score) for score in results.values.values()]
    parts += [each for each in (_classes(results), _memorization(results), _tests(results)) if each.row_count]
    for each in parts:
        each.title_justify = "left"
    plain = {"color_system": None, "highlight": False, "markup": False, "emoji": False}
    console = Console(width=10_000, record=True, file=io.StringIO(), **plain)
    console.width = max(80, *(console.measure(each).maximum for each in parts))
    console.print(f"{len(results.names)} systems, {results.noises:,} noises, {results.conditions.data}", soft_wrap=True)
    for note in results.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for each in parts:
        console.print(each)
    for remark in remarks(results):
        console.print(f"warning: {remark}", soft_wrap=True)
    return "\n".join(printable(line.rstrip()) for line in console.export_text().rstrip("\n").split("\n"))


def _span(row: Mapping[str, Any], prefix: str = "") -> str:
    low, high = row[prefix + "low"], row[prefix + "high"]
    return "" if low is None else f"{low:.3f}-{high:.3f}"


def _cell(row: Mapping[str, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'rate']:.3f}\n{_span(row, prefix)}"


def _table(title: str, *columns: str, left: int = 1) -> Table:
    made = Table(title=title)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < left else "right")
    return made


def _matrix(results: Results, score: PairCounts) -> Table:
    """Above the diagonal the rate over its interval, below it the control's."""
    below = "" if score.control is None else "; below the diagonal: shuffled noises (chance)"
    second_line = f"second line: {results.conditions.percent} interval{below}"
    made = _table(f"{score.name} ({condition(results, score)}; {second_line})", "")
    cells = {(row["first"], row["second"]): row for row in tables.pairs(results) if row["score"] == score.name}
    for name in results.names:
        made.add_column(name, justify="center", no_wrap=True)
    for first in results.names:
        line = [first]
        for second in results.names:
            above, under = cells.get((first, second)), cells.get((second, first))
            if above is not None:
                line.append(_cell(above))
            elif under is not None and "control_rate" in under:
                line.append(_cell(under, "control_"))
            else:
                line.append("" if under is not None else "-")
        made.add_row(*line)
    return made


def _ends(results: Results, score: PairCounts) -> Table:
    """The pairs with the highest and the lowest rates, where a matrix of all would be too wide to read."""
    title = f"{score.name} ({condition(results, score)}): highest and lowest of {len(score.pairs()):,} pairs"
    made = _table(title, "first", "second", score.name, f"{results.conditions.percent} interval", "chance", left=2)
    rows = [row for row in tables.pairs(results) if row["score"] == score.name]
    rows.sort(key=lambda row: -row["rate"])
    for row in [*rows[:_ENDS], *rows[max(_ENDS, len(rows) - _ENDS) :]]:
        chance = f"{row['control_rate']:.3f}" if "control_rate" in row else "-"
        made.add_row(row["first"], row["second"], f"{row['rate']:.3f}", _span(row), chance)
    return made


def _values(results: Results, score: PairValues) -> Table:
    """Above the diagonal the values, below it those on shuffled noises, and those against training images beside."""
    below = "" if score.control is None else "; below the diagonal: shuffled noises"
    most = max(len(bank) for bank in results.banks)
    made = _table(f"{score.name} (n = {most:,}{below})", "")
    for name in results.names:
        made.add_column(name, justify="right", no_wrap=True)
    if score.train is not None:
        made.add_column("training images", justify="right")
    shown = score.values if score.control is None else np.triu(score.values) + np.tril(score.control, -1)
    for number, name in enumerate(results.names):
        line = shown[number].tolist() + ([] if score.train is None else [score.train[number]])
        made.add_row(name, *("-" if np.isnan(value) else f"{value:.4g}" for value in line))
    return made


def _classes(results: Results) -> Table:
    rows = tables.conditional(results)
    classes = sorted({row["class"] for row in rows if row["class"] != "mean"})
    many = len(classes) > _MOST_CLASSES
    named = results.class_names or [f"class {label}" for label in range(results.classes)]
    heads = ["lowest class", "highest class"] if many else [named[label] for label in classes]
    title = f"Conditional scores (second line: {results.conditions.percent} interval)"
    made = _table(title, "score", "first", "second", "mean", *heads, left=3)
    for names, group in groupby(rows, key=lambda row: (row["score"], row["first"], row["second"])):
        *by_class, mean = group
        if many:
            by_class = [limit(by_class, key=lambda row: row["rate"]) for limit in (min, max)]
        made.add_row(*names, _cell(mean), *(_cell(row) for row in by_class))
    return made


def _memorization(results: Results) -> Table:
    title = f"GL: share of samples that are no copy of a training image ({gl_condition(results)})"
    interval = f"{results.conditions.percent} interval"
    made = _table(title, "system", "GL", interval, "not copied", "training images", "mean nearest", *_CHANCE.values())
    for row in tables.gl(results):
        counts = f"{row['count']:,} of {row['n']:,}", f"{row['train_size']:,}", f"{row['mean_nearest']:.3f}"
        chance = (f"{row[key]:.3f}" if key in row else "" for key in _CHANCE)
        made.add_row(row["system"], f"{row['rate']:.3f}", _span(row), *counts, *chance)
    return made


def _tests(results: Results) -> Table:
    """The paired tests, where they are few."""
    rows = tables.paired(results)
    title = "Is one pair more alike than the other, on the same noises? (McNemar's exact test; Holm over each score)"
    heads = "score", "first pair", "second pair", "difference", f"{results.conditions.percent} interval"
    made = _table(title, *heads, "p", "adjusted p", left=3)
    for row in rows if len(rows) <= _MOST_TESTS else []:
        both = (f"{row['system']} - {row[other]}" for other in ("first", "second"))
        numbers = f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}"
        made.add_row(row["score"], *both, *numbers, f"{row['p_value']:.2g}", f"{row['p_adjusted']:.2g}")
    return made
