"""What studies of conditional systems say of conditional RP: lines of text, a chart over the classes, grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from repro.banks import Bank
from repro.comparison import Comparison
from repro.plots import Curve, Panel, image_grid, line_chart
from repro.studies.report import rate_text

__all__ = ["class_chart", "class_grid", "class_lines", "class_rows", "means", "pair_of"]

Rows = Sequence[Mapping[str, Any]]

_GRID_ROWS = 4
_GRID_CLASSES = 10


def class_rows(compared: Comparison) -> list[dict[str, Any]]:
    """Returns rows of conditional RP: one a pair and class, and one a pair for the mean over the classes."""
    return [row for row in compared.table("conditional") if row["score"] == "RP"]


def pair_of(row: Mapping[str, Any]) -> str:
    """Returns names of the two systems of a row."""
    return f"{row['first']} - {row['second']}"


def means(rows: Rows) -> list[Mapping[str, Any]]:
    """Returns the rows of means over the classes."""
    return [row for row in rows if row["class"] == "mean"]


def class_lines(compared: Comparison, rows: Rows) -> Iterator[str]:
    """Returns conditional RP of every pair, with its control, and of its lowest and highest class."""
    yield (
        f"Same noise, same image: {compared.descriptor['name']} > {compared.threshold:g}, {compared.noises:,} noises, "
        f"{len({row['class'] for row in rows} - {'mean'})} classes; in brackets Wilson 95 % intervals, images of one "
        "noise taken as independent"
    )
    yield ""
    yield "Conditional RP, the mean over the classes; control: other noises, same class"
    for mean in means(rows):
        each = [row for row in rows if pair_of(row) == pair_of(mean) and row is not mean]
        low, high = (pick(each, key=lambda row: row["rate"]) for pick in (min, max))
        control = max(row["control_rate"] for row in each)
        yield (
            f"  {pair_of(mean)}: {rate_text(mean)}, n = {mean['n']:,}, control {mean['control_rate']:.3f}; from "
            f"{rate_text(low)} (class {low['class']}) to {rate_text(high)} (class {high['class']}), n = {low['n']:,} "
            f"each, highest control {control:.3f}"
        )


def class_chart(compared: Comparison, rows: Rows) -> Figure:
    """Returns conditional RP of every pair over the classes."""
    curves = []
    labels = list(dict.fromkeys(row["class"] for row in rows if row["class"] != "mean"))
    for mean in means(rows):
        each = [row for row in rows if pair_of(row) == pair_of(mean) and row is not mean]
        rates, low, high = ([row[key] for row in each] for key in ("rate", "low", "high"))
        curves.append(Curve(f"{pair_of(mean)}: {mean['rate']:.2f}", labels, rates, low, high))
    worst = [max(row["control_rate"] for row in rows if row["class"] == label) for label in labels]
    curves.append(Curve("highest control", labels, worst, dashed=True))
    return line_chart(
        [Panel(curves, "same noise, same class", "class", "conditional RP", ("linear", "linear"), (0, 1.02))],
        "Conditional systems",
        f"{compared.descriptor['name']} > {compared.threshold:g}, n = {compared.noises:,} a class, 95 % bands; means "
        "beside the names; control: other noises",
    )


def class_grid(name: str, bank: Bank, beside: tuple[str, Bank] | None = None) -> Figure:
    """Returns what one conditional system draws: the first noises by the first classes.

    Args:
        name: Of the system.
        bank: Its bank, with labels.
        beside: An unconditional system, name and bank, whose images of the same noises stand in front.

    Raises:
        ValueError: the bank has no labels.
    """
    if bank.labels is None:
        raise ValueError(f"the bank of {name} has no labels")
    each = bank.manifest.images_per_seed
    tiles = bank.images.unflatten(0, (-1, each))[:_GRID_ROWS, :_GRID_CLASSES]
    noises = [f"noise {seed}" for seed in bank.seeds[::each][:_GRID_ROWS].tolist()]
    columns, about = [str(label) for label in bank.labels[: tiles.shape[1]].tolist()], "one column a class"
    if beside is not None:
        tiles = torch.cat([beside[1].images[: len(tiles), None], tiles], dim=1)
        columns, about = [beside[0], *columns], f"{about}; first column: {beside[0]}, no class"
    return image_grid(tiles, columns, noises, name, about)
