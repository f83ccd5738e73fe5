"""Figures of a comparison: one function a figure, from results to a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from repro.comparison.results import PairCounts, Results
from repro.comparison.text import condition, gl_condition
from repro.plots import curve_chart, heat_map, image_grid, nearest_grid, rate_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "SCORE_FIGURES", "figures"]

_GRID_ROWS = 10
_NEAREST = 10
_MOST_SYSTEMS = 20  # whose images are shown
_TITLES = {"RP": "Reproducibility (RP)", "MAE": "MAE score"}


def matrix(results: Results, score: PairCounts) -> Figure:
    """Returns a heat map of the rates, those on shuffled noises below the diagonal."""
    below = "" if score.control is None else "; below the diagonal: shuffled noises"
    about = f"{condition(results, score)}, {results.conditions.data}{below}"
    return heat_map(score.rates, results.names, _TITLES.get(score.name, score.name), about, score.control_rates)


def curves(results: Results, score: PairCounts) -> Figure | None:
    """Returns the rates of all pairs by threshold, where the score is of similarities."""
    if score.sense != ">":
        return None
    pairs = score.pairs()
    rates = [score.curve(*pair) / score.totals[pair] for pair in pairs]
    controlled = pairs if score.control is not None else []
    chance = [score.curve(*pair, control=True) / score.totals[pair] for pair in controlled]
    names = [f"{results.names[i]} - {results.names[j]}" for i, j in pairs]
    title = f"{_TITLES.get(score.name, score.name)} by threshold"
    about = f"{condition(results, score)}, {results.conditions.data}{'; grey: shuffled noises' if chance else ''}"
    return curve_chart(score.thresholds(), rates, names, title, about, chance, score.threshold)


def grid(results: Results) -> Figure:
    """What every system draws from the same few noises, a noise a row; of conditional systems a noise and class."""
    mixed = len({bank.manifest.images_per_seed for bank in results.banks}) > 1
    count = min(_GRID_ROWS, results.n)
    images, rows = [], []
    for number, bank in enumerate(results.banks[:_MOST_SYSTEMS]):
        chosen = torch.arange(count)
        if mixed and bank.labels is not None:
            outcomes = results.scores["Between RP"].outcomes
            pair, outcome = next(item for item in outcomes.items() if number in item[0])
            chosen = torch.tensor([outcome.rows(row)[pair.index(number)] for row in range(count)])
        images.append(bank.images[chosen])
    first = results.banks[0]
    for row in range(count):
        label = "" if first.labels is None or mixed else f", class {int(first.labels[row])}"
        rows.append(f"{int(first.seeds[row * (first.manifest.images_per_seed if mixed else 1)])}{label}")
    about = f"one row a noise, by seed; {results.conditions.data}{_left_out(results.names)}"
    names = results.names[:_MOST_SYSTEMS]
    return image_grid(torch.stack(images, dim=1), names, rows, "Same noise, different systems", about)


def _left_out(systems: Sequence[object]) -> str:
    return f"; the first {_MOST_SYSTEMS} of {len(systems)} systems" if len(systems) > _MOST_SYSTEMS else ""


def _gl_about(results: Results) -> str:
    return f"{gl_condition(results)}, {results.conditions.data}"


def gl(results: Results) -> Figure | None:
    """Returns GL of each system with training images, with its interval."""
    known = [(name, copies) for name, copies in zip(results.names, results.memorization, strict=True) if copies]
    if not known:
        return None
    names, copies = zip(*known, strict=True)
    rates, intervals = zip(*((each.rate, each.interval(results.conditions.confidence)) for each in copies), strict=True)
    label = "share of samples that are no copy of a training image"
    return rate_chart(rates, intervals, names, "Generalization (GL)", _gl_about(results), label)


def nearest(results: Results) -> Figure | None:
    """Returns the first samples of each system with training images above the training images nearest to them."""
    systems = zip(results.names, results.banks, results.train, results.memorization, strict=True)
    known = [
        (name, bank.images, train, copies)
        for name, bank, train, copies in systems
        if train is not None and copies is not None
    ]
    if not known:
        return None
    about, shown = f"{_gl_about(results)}{_left_out(known)}", min(_NEAREST, results.n)
    known = known[:_MOST_SYSTEMS]
    return nearest_grid(
        [images[:shown] for _, images, _, _ in known],
        [train[torch.from_numpy(copies.index[:shown])] for _, _, train, copies in known],
        [copies.similarity[:shown].tolist() for _, _, _, copies in known],
        [name for name, _, _, _ in known],
        "Samples and their nearest training images",
        f"above: sample; below: nearest training image and its similarity; {about}",
    )


FIGURES: dict[str, Callable[[Results], Figure | None]] = {"grid": grid, "gl": gl, "nearest": nearest}
"""The figures by name, which is also that of their file; None where there is nothing to show."""

SCORE_FIGURES: dict[str, Callable[[Results, PairCounts], Figure | None]] = {"{}": matrix, "{} curve": curves}
"""The figures of every score, by a name with the score's in it."""


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Returns all figures that have something to show, by name, one at a time."""
    for score in results.scores.values():
        for name, draw_score in SCORE_FIGURES.items():
            if (figure := draw_score(results, score)) is not None:
                yield name.format(score.name), figure
    for name, draw in FIGURES.items():
        if (figure := draw(results)) is not None:
            yield name, figure
