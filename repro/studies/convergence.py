"""Beyond the paper: at which point of their training systems begin to draw the same image from the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.plots import Curve, Panel, image_grid, line_chart
from repro.studies import SCALES, Drawn, Plan, Report, Study, Trained, rate_text, three_systems
from repro.studies.swept import copy_rows, curve_of, pair_rows

__all__ = ["Convergence"]


class _Size(NamedTuple):
    """Images a step, kept steps in ascending order, seconds of a training and of a bank."""

    batch: int
    steps: tuple[int, ...]
    seconds: float
    draw_seconds: float


def _doubled(first: int, count: int) -> tuple[int, ...]:
    return tuple(first << k for k in range(count))


_SIZES = {
    "tiny": _Size(128, _doubled(50, 7), 130, 8),
    "cpu": _Size(32, _doubled(125, 5), 1000, 150),
    "small": _Size(128, _doubled(1250, 5), 3600, 600),
    "paper": _Size(512, _doubled(6250, 7), 250_000, 3600),
}
_GRID_ROWS = 5


class Convergence(Study):
    """Three systems, drawn from the same noises while they are trained: RP, MAE and GL over the images seen so far.

    Each is trained once, with seeds of its own, and keeps its checkpoints. Two questions stand beside each other: from
    when on do two systems draw the same image, and from when on does one system draw what it draws in the end. All see
    batches of one size, so that a step means as many images everywhere.
    """

    name: ClassVar[str] = "convergence"
    figure: ClassVar[str] = "none: how likeness comes about"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> dict[int, dict[str, Drawn]]:
        """Trains each system and draws a bank from every kept checkpoint."""
        size = _SIZES[plan.scale.name]
        keep = {"class_path": "RunCheckpoint", "init_args": {"every_n_steps": size.steps[0], "keep": True}}
        common = {"data.batch_size": size.batch, "trainer.max_steps": size.steps[-1], "trainer.callbacks": [keep]}
        runs = three_systems(plan, common, size.seconds)
        return {step: {name: _bank(plan, run, step, size) for name, run in runs.items()} for step in size.steps}

    def report(self, report: Report, parts: dict[int, dict[str, Drawn]]) -> None:
        """``convergence.csv`` with RP and MAE, ``memorization.csv`` with GL over images seen, and the figure."""
        size, train = _SIZES[report.scale.name], report.scale.build_data().images()
        systems = [*parts[size.steps[-1]]]
        ends = {f"{name}, in the end": bank for name, bank in parts[size.steps[-1]].items()}
        compared = {
            step * size.batch: report.compare(banks | (ends if step != size.steps[-1] else {}), train)
            for step, banks in parts.items()
        }
        rows = [row for seen, each in compared.items() for row in pair_rows(each, images_seen=seen) if _asked(row)]
        copies = [row for seen, each in compared.items() for row in copy_rows(each, images_seen=seen)]
        copies = [row for row in copies if row["system"] in systems]
        first = next(iter(compared.values()))
        report.table("convergence", rows, first)
        report.table("memorization", copies, first)
        condition = f"{first.descriptor['name']} > {first.threshold:g}, n = {first.n:,} noises, 95 % intervals"
        values = {f"rp/{row['first']}_{row['second']}_{row['images_seen']}": row["rp"] for row in rows}
        chart = line_chart(_panels(systems, rows, copies), "Likeness while systems are trained", condition)
        report.figure([chart], [_grid(compared, systems)], values=values)
        report.text(f"RP and GL on {condition}; control: shuffled noises", "", *_lines(rows, copies))


def _bank(plan: Plan, run: Trained, step: int, size: _Size) -> Drawn:
    kept = Trained(run.name, run.run / "checkpoints" / f"step={step}.ckpt", run.job)
    return plan.draw(f"{run.name}_{step}", kept, seconds=size.draw_seconds)


def _asked(row: Mapping[str, Any]) -> bool:
    """Two systems now, or one of them now and in the end."""
    first, second = row["first"], row["second"]
    return second == f"{first}, in the end" or ", in the end" not in first + second


def _panels(systems: Sequence[str], rows: list[dict[str, Any]], copies: list[dict[str, Any]]) -> list[Panel]:
    def of(one: str, other: str) -> list[dict[str, Any]]:
        return [row for row in rows if (row["first"], row["second"]) == (one, other)]

    seen = list(dict.fromkeys(row["images_seen"] for row in rows))
    control = [max(row["control"] for row in rows if row["images_seen"] == count) for count in seen]
    pairs = [
        curve_of(f"{one} - {other}", of(one, other), "images_seen", "rp") for one, other in combinations(systems, 2)
    ]
    own = [curve_of(name, of(name, f"{name}, in the end"), "images_seen", "rp") for name in systems]
    new = [curve_of(name, [row for row in copies if row["system"] == name], "images_seen", "gl") for name in systems]
    titles = {
        "RP of two systems": ([*pairs, Curve("largest control", seen, control, dashed=True)], "RP"),
        "RP with its own end": (own, "RP"),
        "GL: samples that are no copy": (new, "GL"),
    }
    return [
        Panel(curves, title, "images seen", up, ("log", "linear"), (0.0, 1.02))
        for title, (curves, up) in titles.items()
    ]


def _grid(compared: Mapping[int, Comparison], systems: Sequence[str]) -> Figure:
    """Images of the same noises, a column for each system at a few moments."""
    seen = [[*compared][index] for index in (0, len(compared) // 2, -1)]
    banks = [
        (f"{name}, {count:,}", compared[count].banks[compared[count].names.index(name)])
        for count in seen
        for name in systems
    ]
    images = torch.stack([bank.images[:_GRID_ROWS] for _, bank in banks], dim=1)
    seeds = [str(seed) for seed in banks[0][1].seeds[:_GRID_ROWS].tolist()]
    return image_grid(images, [name for name, _ in banks], seeds, "What they draw", "one row a noise; images seen")


def _lines(rows: Sequence[Mapping[str, Any]], copies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for seen in dict.fromkeys(row["images_seen"] for row in rows):
        yield f"{seen:,} images seen"
        for row in rows:
            if row["images_seen"] == seen:
                yield f"  RP {row['first']} - {row['second']}: {rate_text(row, 'rp')}, control {row['control']:.3f}"
        for row in copies:
            if row["images_seen"] == seen:
                yield f"  GL {row['system']}: {rate_text(row, 'gl')}"
