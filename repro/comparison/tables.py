"""Tables of a comparison: classes, thresholds, paired tests, metrics that are no rates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.comparison.results import counted
from repro.errors import UserError, unknown
from repro.metrics.functional.paired import PairedTest, adjusted_p_values, mcnemar_test, paired_tests

if TYPE_CHECKING:
    from repro.comparison.results import Comparison, PairCounts

__all__ = ["conditional_table", "curve_table", "paired_table", "paired_test", "value_table"]


def value_table(comparison: Comparison) -> list[dict[str, Any]]:
    """See :meth:`repro.comparison.Comparison.value_table`."""
    names, rows = comparison.names, []
    for score in comparison.values.values():
        for i, j in combinations(range(len(names)), 2):
            if np.isfinite(score.values[i, j]):
                row = {"score": score.name, "first": names[i], "second": names[j], "value": float(score.values[i, j])}
                control = None if score.control is None else float(score.control[i, j])
                rows.append(row | {"control": control})
        for name, value in zip(names, [] if score.train is None else score.train.tolist(), strict=False):
            if np.isfinite(value):
                row = {"score": score.name, "first": name, "second": "training images", "value": value}
                rows.append(row | {"control": None})
    return rows


def conditional_table(comparison: Comparison) -> list[dict[str, Any]]:
    """See :meth:`repro.comparison.Comparison.conditional_table`."""
    rows = []
    for score in comparison.scores.values():
        for i, j in score.pairs():
            labels, found = comparison.banks[i].labels, score.outcomes[i, j]
            if labels is None or comparison.banks[j].labels is None:
                continue
            size = {"minlength": comparison.classes}
            totals = np.bincount(labels, **size)
            hits = np.bincount(labels[found.matches], **size)
            control = None if found.control is None else np.bincount(labels[found.control], **size)
            head = {"score": score.name, "first": comparison.names[i], "second": comparison.names[j]}
            present = np.flatnonzero(totals)
            for label in present.tolist():
                row = head | {"class": label} | counted(int(hits[label]), int(totals[label]))
                rows.append(
                    row | ({} if control is None else counted(int(control[label]), int(totals[label]), "control_"))
                )
            rows.append(head | _mean(hits[present], totals[present], None if control is None else control[present]))
    return rows


def _mean(hits: np.ndarray, totals: np.ndarray, control: np.ndarray | None) -> dict[str, Any]:
    """Unweighted mean over the classes; the interval is that of all images, none when classes differ in size."""
    even = bool((totals == totals[0]).all())
    row = {"class": "mean"}
    for counts, prefix in ((hits, ""), (control, "control_")):
        if counts is not None:
            cells = counted(int(counts.sum()), int(totals.sum()), prefix)
            cells[f"{prefix}rate"] = float((counts / totals).mean())
            row |= cells if even else cells | {f"{prefix}low": None, f"{prefix}high": None}
    return row


def curve_table(comparison: Comparison) -> list[dict[str, Any]]:
    """See :meth:`repro.comparison.Comparison.curve_table`."""
    names, rows = comparison.names, []
    for score in comparison.scores.values():
        limits = score.thresholds()
        for i, j in score.pairs() if limits else []:
            n = int(score.totals[i, j])
            controls = [None] * len(limits) if score.control is None else score.curve(i, j, control=True).tolist()
            for limit, count, control in zip(limits, score.curve(i, j).tolist(), controls, strict=True):
                row = {"score": score.name, "first": names[i], "second": names[j], "threshold": limit}
                row |= counted(count, n)
                rows.append(row | {"control_count": control, "control_rate": None if control is None else control / n})
    blank = {"control_count": None, "control_rate": None}
    for name, found in zip(names, comparison.memorization, strict=True):
        limits = [] if found is None else found.thresholds(comparison.threshold)
        for limit, count in zip(limits, [] if found is None else found.curve(comparison.threshold), strict=True):
            row = {"score": "GL", "first": name, "second": "training images", "threshold": limit}
            rows.append(row | counted(count, len(found.copies)) | blank)
    return rows


def paired_test(comparison: Comparison, system: str, first: str, second: str, score: str) -> PairedTest:
    """See :meth:`repro.comparison.Comparison.paired_test`."""
    if score not in comparison.scores:
        raise unknown("score", score, list(comparison.scores))
    for name in (system, first, second):
        if name not in comparison.names:
            raise unknown("system", name, comparison.names)
    found = []
    for other in (first, second):
        place = tuple(sorted((comparison.names.index(system), comparison.names.index(other))))
        outcome = comparison.scores[score].outcomes.get(place)
        if outcome is None:
            raise UserError(f"{score} does not compare {system!r} with {other!r}; name another score or system")
        found.append(outcome.matches)
    return mcnemar_test(*found)


def paired_table(comparison: Comparison) -> list[dict[str, Any]]:
    """See :meth:`repro.comparison.Comparison.paired_table`."""
    rows = []
    for score in comparison.scores.values():
        tests = list(_tests(score))
        adjusted = adjusted_p_values([test.p_value for _, test in tests])
        for ((system, first, second), test), p_value in zip(tests, adjusted, strict=True):
            names = {"system": system, "first": first, "second": second}
            row = {"score": score.name} | {key: comparison.names[place] for key, place in names.items()}
            rates = {"rate_first": test.first, "rate_second": test.second}
            found = {key: value for key, value in test._asdict().items() if key not in row}
            rows.append(row | rates | found | {"p_adjusted": p_value})
    return rows


def _tests(score: PairCounts) -> Iterator[tuple[tuple[int, int, int], PairedTest]]:
    """(A, B, C) and the test of (A, B) against (A, C), for pairs on the same noises."""
    pairs = score.pairs()
    together = {}
    for n in {len(score.outcomes[pair].matches) for pair in pairs}:
        alike = [pair for pair in pairs if len(score.outcomes[pair].matches) == n]
        matches = np.stack([score.outcomes[pair].matches for pair in alike]).astype(np.float64)
        both = (matches @ matches.T).astype(np.int64)
        together |= {(a, b): int(both[x, y]) for x, a in enumerate(alike) for y, b in enumerate(alike)}
    systems = range(len(score.counts))
    places, counts = [], []
    for system in systems:
        for first, second in combinations([other for other in systems if other != system], 2):
            one, two = (tuple(sorted((system, other))) for other in (first, second))
            if (one, two) in together:
                both = together[one, two]
                places.append((system, first, second))
                counts.append((together[one, one] - both, together[two, two] - both, both, int(score.totals[one])))
    yield from zip(places, paired_tests(*zip(*counts, strict=True)) if counts else [], strict=True)
