"""Figures 2, 16 and 17: from memorisation to generalisation as the training set grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.plots import Curve, Panel, image_grid, line_chart
from repro.studies import SCALES, Drawn, Plan, Report, Study, Trained, seeded
from repro.studies.swept import copy_rows, curve_of, pair_rows

__all__ = ["FORMULAS", "GAUSSIAN", "OPTIMUM", "Part", "Regimes", "Systems", "systems_of"]

OPTIMUM, GAUSSIAN = "optimum", "gaussian"
FORMULAS = {OPTIMUM: "digits/optimum", GAUSSIAN: "digits/gaussian"}
"""Exact models of the N images by name: the empirical optimum, and the best straight line; with their configs."""


class _System(NamedTuple):
    """An architecture: its configs, further settings, seconds on one core to train it and to draw 1,000 images."""

    configs: tuple[str, ...]
    settings: Mapping[str, Any]
    seconds: float
    draw_seconds: float


class Systems(NamedTuple):
    """A scale of this study: the systems, and the numbers of training images."""

    systems: Mapping[str, _System]
    counts: tuple[int, ...]


class Part(NamedTuple):
    """A training, None for a formula, and its bank."""

    run: Trained | None
    bank: Drawn


def _mlp(width: int, seconds: float) -> _System:
    settings = {"model.network.width": width, "trainer.max_steps": 8000, "model.ema_halflife": 40_000}
    return _System(("digits/mlp_edm",), settings, seconds, 3)


def _ddpmpp(width: int, seconds: float, *overlay: str) -> _System:
    settings = {"model.network.width": width, "data.batch_size": 128, "data.horizontal_flip": False}
    return _System(("ddpmv3_cifar", *overlay), settings, seconds, seconds / 50)


def _narrow(width: int) -> _System:
    settings = {"model.network.width": width, "model.parameterization": "V"}
    return _System(("ddpmv3_cifar", "small/cifar16"), settings, 25 * width, 150)


_SYSTEMS = {
    "tiny": Systems(
        {
            "MLP-96": _mlp(96, 85),
            "MLP-192": _mlp(192, 150),
            "DDPM++-16": _System(("digits/ddpmpp_vp",), {"trainer.max_steps": 1500}, 130, 8),
        },
        (32, 64, 128, 256, 512, 1024, 1797),
    ),
    "cpu": Systems(
        {f"DDPM++-{width}": _narrow(width) for width in (16, 32)},
        (2**4, *(2**k for k in range(6, 16, 3))),
    ),
    "small": Systems(
        {"DDPM++-32": _ddpmpp(32, 3000, "small/cifar"), "DDPM++-64": _ddpmpp(64, 3600, "small/cifar")},
        tuple(2**k for k in range(6, 16, 2)),
    ),
    "paper": Systems(
        {f"DDPM++-{width}": _ddpmpp(width, 40_000 * width / 64) for width in (64, 128, 256)},
        tuple(2**k for k in range(6, 16)),
    ),
}
_GRID_ROWS = 5


def systems_of(plan: Plan) -> dict[int, dict[str, Part]]:
    """For each N: trains every system and draws its bank, and draws the banks of the formulas."""
    scale, own = plan.scale, _SYSTEMS[plan.scale.name]
    noises = int(scale.seeds.rpartition("-")[2]) + 1
    parts: dict[int, dict[str, Part]] = {}
    for count in own.counts:
        parts[count] = {}
        for number, (name, system) in enumerate(own.systems.items()):
            settings = {**system.settings, "data.subset": count, **seeded(number)}
            run = plan.fit(f"{name}_n{count}", system.configs, settings, seconds=system.seconds)
            parts[count][name] = Part(run, plan.draw(run.name, run, seconds=system.draw_seconds * noises / 1000))
        known = scale.data_at("model.denoiser.images", subset=count)
        for name, config in FORMULAS.items():
            parts[count][name] = Part(None, plan.draw(f"{name}_n{count}", config, settings=known))
    return parts


class Regimes(Study):
    """Networks of several widths and kinds trained on N images, for N from few to many; each with its own seeds.

    With few images RP is high and the systems agree with the empirical optimum of these images, which draws nothing
    else; with many RP is high again, the systems are far from the optimum, and draw new images; between, RP is lower.
    Beside it stands the best denoiser that is a straight line, that of the Gaussian with the images' mean and
    covariance: how much of what the systems draw it explains (the paper's reference 31).
    """

    name: ClassVar[str] = "regimes"
    figure: ClassVar[str] = "2, 16 and 17"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> dict[int, dict[str, Part]]:
        """For each N: train every system and draw its bank, and draw the banks of the formulas."""
        return systems_of(plan)

    def report(self, report: Report, parts: dict[int, dict[str, Part]]) -> None:
        """``regimes.csv`` with RP and MAE of every pair at each N, ``memorization.csv`` with GL, and the figure."""
        compared, scale = {}, report.scale
        for count, systems in parts.items():
            train = scale.build_data(subset=count).images()
            compared[count] = report.compare({name: part.bank for name, part in systems.items()}, train)
            report.comparison(f"results_n{count}", compared[count], figures=False)
        first, trained = compared[min(compared)], [name for name in parts[min(parts)] if name not in FORMULAS]
        pairs = [row for count, each in compared.items() for row in pair_rows(each, N=count)]
        copies = [row for count, each in compared.items() for row in copy_rows(each, N=count)]
        report.table("regimes", pairs, first)
        report.table("memorization", copies, first)
        condition = f"{first.descriptor['name']} > {first.threshold:g}, n = {first.n:,} noises, 95 % intervals"
        title = f"From few to many training images of {scale.learned}"
        values = {f"rp/{row['first']}_{row['second']}_n{row['N']}": row["rp"] for row in pairs}
        values |= {f"gl/{row['system']}_n{row['N']}": row["gl"] for row in copies}
        chart = line_chart(_panels(trained, [*parts], pairs, copies), title, condition)
        report.figure([chart], [_grid(compared)], values=values)
        report.text(f"RP, MAE and GL on {condition}", "", _text(trained, [*parts], pairs, copies))


def _panels(
    systems: list[str],
    counts: list[int],
    pairs: Sequence[Mapping[str, Any]],
    copies: Sequence[Mapping[str, Any]],
) -> list[Panel]:
    def of(one: str, other: str) -> list[Mapping[str, Any]]:
        return [row for row in pairs if (row["first"], row["second"]) == (one, other)]

    across, limits = "training images N", (0.0, 1.0)
    trained = [curve_of(f"{one} - {other}", of(one, other), "N", "rp") for one, other in combinations(systems, 2)]
    largest = [max(row["control"] for row in pairs if row["N"] == count) for count in counts]
    control = Curve("largest control", counts, largest, dashed=True)
    return [
        Panel([*trained, control], "RP of trained systems", across, "RP", limits=limits),
        *(
            Panel(
                [curve_of(name, of(name, formula), "N", "rp") for name in systems], title, across, "RP", limits=limits
            )
            for formula, title in ((OPTIMUM, "RP with the empirical optimum"), (GAUSSIAN, "RP with the Gaussian"))
        ),
        Panel(
            [curve_of(name, [row for row in copies if row["system"] == name], "N", "gl") for name in systems],
            "GL: samples that are no copy",
            across,
            "GL",
            limits=limits,
        ),
    ]


def _grid(compared: Mapping[int, Comparison]) -> Figure:
    """Images of the same noises at the smallest, a middle and the largest N."""
    counts = [[*compared][index] for index in (0, len(compared) // 2, -1)]
    banks = [
        (f"{name}, N = {count:,}", bank)
        for count in counts
        for name, bank in zip(compared[count].names, compared[count].banks, strict=True)
    ]
    images = torch.stack([bank.images[:_GRID_ROWS] for _, bank in banks], dim=1)
    seeds = [str(seed) for seed in banks[0][1].seeds[:_GRID_ROWS].tolist()]
    return image_grid(images, [name for name, _ in banks], seeds, "What they draw", "one row a noise")


def _text(
    systems: list[str],
    counts: list[int],
    pairs: Sequence[Mapping[str, Any]],
    copies: Sequence[Mapping[str, Any]],
) -> str:
    lines = [f"{'':28}" + "".join(f"{f'N = {count:,}':>12}" for count in counts)]

    def line(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
        lines.append(f"{name:28}" + "".join(f"{row[key]:12.3f}" for row in rows))

    for one, other in combinations([*systems, *FORMULAS], 2):
        line(f"RP {one} - {other}", [row for row in pairs if (row["first"], row["second"]) == (one, other)], "rp")
    for name in [*systems, *FORMULAS]:
        line(f"GL {name}", [row for row in copies if row["system"] == name], "gl")
    control = max(row["control"] for row in pairs if row["second"] not in FORMULAS)
    widest = max(row["high"] - row["low"] for row in pairs) / 2
    lines.append(f"Wilson 95 % intervals: at most +-{widest:.3f}; largest control of trained pairs: {control:.3f}")
    return "\n".join(lines)
