"""Figures 8, 18 and 19: conditional systems beside each other and beside unconditional ones, on the same noises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.comparison.results import counted
from repro.noise import parse_seeds
from repro.plots import rate_chart
from repro.studies import CONDITIONAL_SYSTEMS, SCALES, SYSTEMS, Drawn, Plan, Report, Study, rate_text, train
from repro.studies.by_class import class_chart, class_grid, class_lines, class_rows, means, pair_of

__all__ = ["Conditional"]

_PLAIN = ("EDMv1", "Multistagev1", "UViT")
_SEEDS = {"tiny": "0-299", "cpu": "0-99", "small": "0-999", "paper": "0-9999"}
_IMAGE_SECONDS = {"tiny": 0.01, "cpu": 0.15, "small": 0.3, "paper": 1.8}


class Conditional(Study):
    """Three conditional and three unconditional systems: conditional RP by class, and between RP.

    Every conditional system draws each noise under every class. Two of them are compared class by class; their control
    pairs images of the same class and different noises. Between RP asks whether an unconditional system draws what a
    conditional one draws from the same noise under some class; its control asks the same of different noises, with as
    many classes to choose from. At the scale ``tiny`` the systems are narrow networks on the 8 x 8 digits, at ``cpu``
    networks of a million parameters on CIFAR-10 at 16 x 16, at ``small`` narrow networks on CIFAR-10, at ``paper`` the
    paper's.

    Args:
        seeds: Which noises; by default 0-299, 0-99, 0-999 or, as in the paper, 0-9999, by scale.
    """

    name: ClassVar[str] = "conditional"
    figure: ClassVar[str] = "8, 18 and 19"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def __init__(self, seeds: str | None = None) -> None:
        if seeds is not None:
            parse_seeds(seeds)
        self.seeds = seeds

    def plan(self, plan: Plan) -> dict[str, Drawn]:
        """Trains the six systems and draws their banks."""
        seeds, each = self.seeds or _SEEDS[plan.scale.name], _IMAGE_SECONDS[plan.scale.name]
        count = len(parse_seeds(seeds))
        classes = dict.fromkeys(_PLAIN, 1) | dict.fromkeys(CONDITIONAL_SYSTEMS, 10)
        return {
            name: plan.draw(name, train(plan, name), seeds, seconds=each * images * count)
            for name, images in classes.items()
        }

    def report(self, report: Report, parts: dict[str, Drawn]) -> None:
        """Writes conditional and between RP as text, CSV, PNG and TensorBoard log."""
        train_images = next(iter(parts.values())).open().training_images()
        compared = report.compare(parts, train_images)
        report.comparison("results", compared)
        classes = class_rows(compared)
        between = [_with_classes(compared, row) for row in compared.table() if row["score"] == "Between RP"]
        report.table("conditional", classes, compared)
        report.table("between", between, compared)
        values = {pair_of(row): row["rate"] for row in [*means(classes), *between]}
        charts = [class_chart(compared, classes), _between_chart(compared, between)]
        unconditional = compared.names[0], compared.banks[0]
        systems = zip(compared.names, compared.banks, strict=True)
        grids = [class_grid(name, bank, unconditional) for name, bank in systems if bank.labels is not None]
        report.figure([charts, grids], values=values)
        report.text(*_lines(compared, classes, between))


def _with_classes(compared: Comparison, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of between RP, with how many of its matches are under the class of the nearest training image."""
    index, other = compared.names.index(row["first"]), compared.names.index(row["second"])
    outcome = compared.scores["Between RP"].outcomes[index, other]
    data, copies, labels = (
        compared.banks[index].training_data(),
        compared.memorization[index],
        compared.banks[other].labels,
    )
    if data is None or copies is None or labels is None:
        raise ValueError("images have no classes: a bank does not say what it was trained on, or has no labels")
    alike = (data.shown()[1][copies.index] == labels[outcome.second])[outcome.matches]
    return dict(row) | {"same_class": int(alike.sum())}


def _lines(
    compared: Comparison, classes: Sequence[Mapping[str, Any]], between: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    yield from class_lines(compared, classes)
    yield ""
    yield "Between RP: some class gives the unconditional image; control: other noises, as many classes (an image shows"
    yield "the class of the nearest training image)"
    for row in between:
        alike = counted(row["same_class"], row["count"]) if row["count"] else None
        shown = "" if alike is None else f"; in {rate_text(alike)} of them the class that it shows"
        yield f"  {pair_of(row)}: {rate_text(row)}, n = {row['n']:,}, control {row['control_rate']:.3f}{shown}"
    yield ""
    yield "RP of the unconditional systems"
    for row in compared.table():
        if row["score"] == "RP" and row["first"] in SYSTEMS:
            yield f"  {pair_of(row)}: {rate_text(row)}, n = {row['n']:,}, control {row['control_rate']:.3f}"
    yield ""
    yield "GL: " + ", ".join(f"{row['system']} {rate_text(row)}" for row in compared.table("gl"))


def _between_chart(compared: Comparison, between: Sequence[Mapping[str, Any]]) -> Figure:
    """Between RP of every pair, and the highest control."""
    control = max(between, key=lambda row: row["control_rate"])
    rows = [*between, counted(control["control_count"], control["n"])]
    return rate_chart(
        [row["rate"] for row in rows],
        [(row["low"], row["high"]) for row in rows],
        [*map(pair_of, between), "highest control"],
        "Unconditional and conditional systems",
        f"{compared.descriptor['name']} > {compared.threshold:g}, n = {compared.noises:,}, 95 % intervals; control: "
        "other noises",
        "between RP: some class gives the unconditional image",
    )
