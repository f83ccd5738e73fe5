"""Beyond the paper: at which noise level on the way the image is decided, and whether systems decide alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from repro.analysis.trajectories import denoised_along
from repro.comparison.counting import derangement
from repro.comparison.results import counted
from repro.images import to_uint8
from repro.metrics.functional.similarity import cosine
from repro.plots import Curve, Panel, image_grid, line_chart
from repro.studies import SCALES, Measured, Plan, Report, Scale, Study, Trained, three_systems

__all__ = ["Trajectory"]

_LEVELS = (60.0, 40.0, 25.0, 15.0, 10.0, 6.0, 4.0, 2.5, 1.5, 1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.05)
_NOISES = {"tiny": 500, "cpu": 300, "small": 500, "paper": 1000}
_SHOWN = (0, 3, 5, 7, 9, 11, 13, -1)
_END = "in the end"


class Trajectory(Study):
    """Three systems walk from the same noises; their denoised images x_0(x_t) are compared at common noise levels.

    Of two systems: the share of noises on which both take the same image for the one behind x_t. Of one system: the
    share on which that is already the image which it draws in the end. Both stand beside shuffled noises, as at large
    noise levels every denoised image is nearly the mean of the data, so that all are alike: a level tells something
    where the two shares differ.
    """

    name: ClassVar[str] = "trajectory"
    figure: ClassVar[str] = "none: how likeness comes about"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> Measured:
        """Trains the systems, and walks with each."""
        return plan.measure("walks", _walks, three_systems(plan), plan.scale)

    def report(self, report: Report, parts: Measured) -> None:
        """``trajectory.csv`` with both shares at every level, and the figure."""
        read = parts.read()
        rows, judged = read["rows"], read["judged"]
        report.table("trajectory", [judged | {"data": report.scale.learned} | row for row in rows])
        n = rows[0]["n"]
        condition = (
            f"{judged['descriptor']} > {judged['threshold']:g}, n = {n:,} noises, 95 % intervals; dashed: shuffled"
        )
        chart = line_chart(_panels(rows), "Denoised images on the way from the noise", condition)
        values = {f"{row['first']}_{row['second']}/{row['level']:g}": row["rate"] for row in rows}
        report.figure([chart], [_grid(read["pictures"])], values=values)
        report.text(f"Denoised images on the way, {condition}", "", *_lines(rows))


def _walks(runs: Mapping[str, Trained], scale: Scale) -> dict[str, Any]:
    """Counts at every level: two systems with each other, and each with its own end."""
    n, walks = _NOISES[scale.name], {}
    for name, run in runs.items():
        model = run.load().to("cuda" if torch.cuda.is_available() else "cpu")
        walks[name] = to_uint8(denoised_along(model.denoiser, model.sampler, range(n), [*_LEVELS, 0.0])).cpu()
    descriptor = scale.judge.descriptor(tuple(model.image_shape))
    threshold = descriptor.default_threshold if scale.judge.threshold is None else scale.judge.threshold
    features = {name: [descriptor.features(images) for images in walk] for name, walk in walks.items()}
    order = derangement(n, 0)
    rows = []
    for step, level in enumerate(_LEVELS):
        pairs = [(one, features[one][step], other, features[other][step]) for one, other in combinations(runs, 2)]
        pairs += [(name, features[name][step], _END, features[name][-1]) for name in runs]
        for first, a, second, b in pairs:
            rows.append({"level": level, "first": first, "second": second, **_cells(a, b, order, threshold)})
    pictures = {name: walk[list(_SHOWN), :2].tolist() for name, walk in walks.items()}
    return {"rows": rows, "judged": {"descriptor": descriptor.name, "threshold": threshold}, "pictures": pictures}


def _cells(a: Tensor, b: Tensor, order: Tensor, threshold: float) -> dict[str, Any]:
    hits, chance = int((cosine(a, b) > threshold).sum()), int((cosine(a, b[order]) > threshold).sum())
    return counted(hits, len(a)) | {"n": len(a), "control": chance / len(a)}


def _panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    names = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    groups = (
        ("two systems take the same image", [pair for pair in names if pair[1] != _END]),
        ("already the image drawn in the end", [pair for pair in names if pair[1] == _END]),
    )
    panels = []
    for title, pairs in groups:
        curves = []
        for one, other in pairs:
            own = [row for row in rows if (row["first"], row["second"]) == (one, other)]
            levels, rates, low, high = ([row[key] for row in own] for key in ("level", "rate", "low", "high"))
            curves.append(Curve(one if other == _END else f"{one} - {other}", levels, rates, low, high))
        for one, other in pairs:
            own = [row for row in rows if (row["first"], row["second"]) == (one, other)]
            curves.append(Curve("", [row["level"] for row in own], [row["control"] for row in own], dashed=True))
        panels.append(Panel(curves, title, "noise level sigma / alpha", "share", ("log", "linear"), (-0.02, 1.02)))
    return panels


def _grid(pictures: Mapping[str, list[Any]]) -> Figure:
    """Denoised images of a few noises: one row a noise and system, one column a level, the last one the drawn image."""
    walks = {name: torch.tensor(values, dtype=torch.uint8) for name, values in pictures.items()}
    images = torch.stack([walk[:, noise] for noise in range(2) for walk in walks.values()])
    levels = [f"{(*_LEVELS, 0.0)[step]:g}" for step in _SHOWN]
    rows = [f"noise {noise}, {name}" for noise in range(2) for name in walks]
    return image_grid(images, levels, rows, "What systems take for the image", "one column a noise level")


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for level in _LEVELS:
        yield f"noise level {level:g}"
        for row in rows:
            if row["level"] == level:
                yield (
                    f"  {row['first']} - {row['second']}: {row['rate']:.3f} ({row['low']:.3f}-{row['high']:.3f}), "
                    f"shuffled {row['control']:.3f}"
                )
