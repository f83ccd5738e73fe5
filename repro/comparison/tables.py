"""Tables of a comparison: one function a table, from results to rows; a new column is one line.

Rows are mappings from column to value. :func:`tables` puts the conditions in front of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from repro.comparison.results import Memorization, PairCounts, Results, counted
from repro.metrics.functional.conditional import conditional_counts, conditional_rates
from repro.metrics.functional.paired import PairedTest, adjusted_p_values, paired_tests

__all__ = ["MOST_PAIRED", "TABLES", "Row", "matrix", "table", "tables"]

MOST_PAIRED = 12
"""Systems up to which all paired tests are made: 660 a score. There are K (K - 1) (K - 2) / 2 of K systems."""

Row = dict[str, Any]


def pairs(results: Results) -> list[Row]:
    """Lists one row a score and pair of systems: counts, n, rate, interval, and the same of the control."""
    rows = []
    for score in results.scores.values():
        for first, second in score.pairs():
            n = int(score.totals[first, second])
            row = {"score": score.name, "first": results.names[first], "second": results.names[second]}
            row |= _counted(results, int(score.counts[first, second]), n)
            if score.control is not None:
                row |= _counted(results, int(score.control[first, second]), n, "control_")
            rows.append(row)
    return rows


def _counted(results: Results, count: int, n: int, prefix: str = "") -> Row:
    return counted(count, n, prefix, results.conditions.confidence)


def values(results: Results) -> list[Row]:
    """Lists one row a metric that is no rate and pair of systems, and one a system and its training images."""
    names, rows = results.names, []
    for score in results.values.values():
        for i, j in combinations(range(len(names)), 2):
            if np.isfinite(score.values[i, j]):
                row = {"score": score.name, "first": names[i], "second": names[j], "value": float(score.values[i, j])}
                rows.append(row | {"control": None if score.control is None else float(score.control[i, j])})
        for name, value in zip(names, [] if score.train is None else score.train.tolist(), strict=False):
            if np.isfinite(value):
                row = {"score": score.name, "first": name, "second": "training images", "value": value}
                rows.append(row | {"control": None})
    return rows


def conditional(results: Results) -> list[Row]:
    """Lists one row a score, pair of conditional systems and class, and one for the mean over the classes.

    ``class_name`` says what a class is called, where that is known.
    """
    rows = []
    for score in results.scores.values():
        for i, j in score.pairs():
            labels, outcome = results.banks[i].labels, score.outcomes[i, j]
            if labels is None or results.banks[j].labels is None:
                continue
            head = {"score": score.name, "first": results.names[i], "second": results.names[j]}
            by_class: list[Row] = []
            mean = head | _named(results, "mean")
            for matches, prefix in ((outcome.matches, ""), (outcome.control, "control_")):
                if matches is not None:
                    cells, over_all = _by_class(results, torch.from_numpy(matches), labels, prefix)
                    by_class = [a | b for a, b in zip(by_class or [head] * len(cells), cells, strict=True)]
                    mean |= over_all
            rows += [*by_class, mean]
    return rows


def _by_class(results: Results, matches: torch.Tensor, labels: torch.Tensor, prefix: str) -> tuple[list[Row], Row]:
    """Cells of each class with images, and of their mean, whose interval is that of all images when classes are even.

    Where classes differ in size, the mean over the classes is no rate of all images, and has no interval.
    """
    hits, totals = conditional_counts(matches, labels, results.classes)
    present = totals.nonzero().flatten().tolist()
    cells = [
        _named(results, label) | _counted(results, int(hits[label]), int(totals[label]), prefix) for label in present
    ]
    mean = _counted(results, int(hits.sum()), int(totals.sum()), prefix)
    mean[f"{prefix}rate"] = conditional_rates(hits, totals).mean
    if len(set(totals[present].tolist())) > 1:
        mean |= {f"{prefix}low": None, f"{prefix}high": None}
    return cells, mean


def _named(results: Results, label: int | str) -> Row:
    names = results.class_names
    return {"class": label} | ({"class_name": names[label] if isinstance(label, int) else label} if names else {})


def curves(results: Results) -> list[Row]:
    """Lists one row a pair of systems and threshold, for RP, MAE and between RP; and one a system, for GL."""
    names, rows = results.names, []
    for score in results.scores.values():
        limits = score.thresholds()
        for i, j in score.pairs() if limits else []:
            n = int(score.totals[i, j])
            controls = [None] * len(limits) if score.control is None else score.curve(i, j, control=True).tolist()
            for limit, count, control in zip(limits, score.curve(i, j).tolist(), controls, strict=True):
                row = {"score": score.name, "first": names[i], "second": names[j], "threshold": limit}
                row |= _counted(results, count, n)
                rows.append(row | {"control_count": control, "control_rate": None if control is None else control / n})
    for name, copies in zip(names, results.memorization, strict=True):
        if copies is None:
            continue
        unseen = copies.chance.get("unseen", ())
        controls = copies.curve("unseen") if len(unseen) else [None] * len(copies.thresholds())
        for limit, count, control in zip(copies.thresholds(), copies.curve(), controls, strict=True):
            row = {"score": "GL", "first": name, "second": "training images", "threshold": limit}
            row |= _counted(results, count, len(copies.copies))
            rate = None if control is None else control / len(unseen)
            rows.append(row | {"control_count": control, "control_rate": rate})
    return rows


def paired(results: Results) -> list[Row]:
    """One row a paired test of each score, with p-values adjusted over all tests of the score that are made (Holm).

    Tests are those of all systems where they are at most :data:`MOST_PAIRED`, else of those that were asked for.
    """
    rows = []
    names = (results.names if len(results.names) <= MOST_PAIRED else ()) if results.paired is None else results.paired
    systems = [results.names.index(name) for name in names]
    for score in results.scores.values():
        tests = list(_tests(score, systems, results.conditions.confidence))
        adjusted = adjusted_p_values([test.p_value for _, test in tests])
        for ((system, first, second), test), p_value in zip(tests, adjusted, strict=True):
            triple = {"system": system, "first": first, "second": second}
            row = {"score": score.name} | {key: results.names[number] for key, number in triple.items()}
            rates = {"rate_first": test.first, "rate_second": test.second}
            cells = {key: value for key, value in test._asdict().items() if key not in row}
            rows.append(row | rates | cells | {"p_adjusted": p_value})
    return rows


def _tests(
    score: PairCounts, tested: Sequence[int], confidence: float
) -> Iterator[tuple[tuple[int, int, int], PairedTest]]:
    """(A, B, C) and the test of (A, B) against (A, C), for each A that is tested and pairs on the same noises."""
    triples, counts = [], []
    for system in tested:
        others = [i + j - system for i, j in score.pairs() if system in (i, j)]
        outcomes = [score.outcomes[min(system, other), max(system, other)].matches for other in others]
        for n in sorted({len(matches) for matches in outcomes}):
            alike = [other for other, matches in zip(others, outcomes, strict=True) if len(matches) == n]
            matches = np.stack([each for each in outcomes if len(each) == n]).astype(np.float64)
            both = (matches @ matches.T).astype(np.int64)
            for x, y in combinations(range(len(alike)), 2):
                triples.append((system, alike[x], alike[y]))
                counts.append((both[x, x] - both[x, y], both[y, y] - both[x, y], both[x, y], n))
    only_first, only_second, shared, sizes = zip(*counts, strict=True) if counts else ([], [], [], [])
    tests = paired_tests(only_first, only_second, shared, sizes, confidence)
    yield from zip(triples, tests, strict=True)


def gl(results: Results) -> list[Row]:
    """One row a system with training images: GL with its counts, interval and chance levels, nearest similarity."""
    return [
        {"system": name}
        | _counted(results, copies.count, len(copies.copies))
        | {"train_size": copies.train_size, "mean_nearest": float(copies.similarity.mean())}
        | {key: value for kind in copies.chance for key, value in _gl_chance(results, copies, kind).items()}
        for name, copies in zip(results.names, results.memorization, strict=True)
        if copies is not None
    ]


def _gl_chance(results: Results, copies: Memorization, kind: str) -> Row:
    n = len(copies.chance[kind])
    return {f"{kind}_n": n} | _counted(results, copies.chance_count(kind), n, f"{kind}_")


TABLES: dict[str, Callable[[Results], list[Row]]] = {
    "pairs": pairs,
    "conditional": conditional,
    "values": values,
    "curves": curves,
    "paired": paired,
    "gl": gl,
}
"""The tables by name, which is also that of their file."""


def matrix(results: Results, score: PairCounts) -> list[Row]:
    """Lists one row a system: the rates of a score with every system; None where nothing was compared."""
    first = {"system", *results.conditions.cells()}
    columns = [f"{name} (system)" if name in first else name for name in results.names]
    return [
        {"system": name} | {column: None if np.isnan(rate) else rate for column, rate in zip(columns, row, strict=True)}
        for name, row in zip(results.names, score.rates.tolist(), strict=True)
    ]


def table(results: Results, name: str) -> list[Row]:
    """One of :data:`TABLES` with the conditions in front of every row, which a row's own n and threshold replace."""
    return _under(results, TABLES[name](results))


def tables(results: Results) -> Iterator[tuple[str, list[Row]]]:
    """Returns all tables that have a row, by name: a matrix a score, named after it, and :data:`TABLES`."""
    for score in results.scores.values():
        yield score.name, _under(results, matrix(results, score))
    for name in TABLES:
        if rows := table(results, name):
            yield name, rows


def _under(results: Results, rows: list[Row]) -> list[Row]:
    return [results.conditions.cells() | row for row in rows]
