"""Figures 2, 16 and 17: from memorisation to generalisation as the training set grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison, compare
from repro.comparison.results import counted
from repro.plots import Curve, Panel, above, image_grid, line_chart, rendered, save_pixels
from repro.registry import build
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job, longest_first
from repro.studies.measuring import log_figure
from repro.studies.system_table import rate_cells, write_rows
from repro.studies.systems import bank_of, configs_folder, draw_job, fit_job

__all__ = ["OPTIMUM", "SIZES", "Regimes", "Size", "System", "compared", "name_of", "regime_jobs"]

OPTIMUM = "optimum"


class System(NamedTuple):
    """An architecture: its configs, further words of ``repro fit``, seconds on one core to train and to draw 1,000."""

    configs: tuple[str, ...]
    options: tuple[str, ...]
    seconds: float
    draw_seconds: float


class Size(NamedTuple):
    """A scale: the systems, the numbers of training images, the noises, the data, and what RP and GL are taken with."""

    systems: Mapping[str, System]
    counts: tuple[int, ...]
    noises: int
    data: str
    descriptor: str | None = None
    threshold: float | None = None


def _mlp(width: int, seconds: float) -> System:
    options = ("--model.network.width", str(width), "--trainer.max_steps", "8000", "--model.ema_halflife", "40_000")
    return System(("digits/mlp_edm",), options, seconds, 3)


def _ddpmpp(width: int, seconds: float, *overlay: str) -> System:
    options = ("--model.network.width", str(width), "--data.batch_size", "128", "--data.horizontal_flip", "false")
    return System(("ddpmv3_cifar", *overlay), options, seconds, seconds / 50)


SIZES = {
    "tiny": Size(
        {
            "MLP-96": _mlp(96, 85),
            "MLP-192": _mlp(192, 150),
            "DDPM++-16": System(("digits/ddpmpp_vp",), ("--trainer.max_steps", "1500"), 130, 8),
        },
        (32, 64, 128, 256, 512, 1024, 1797),
        1000,
        "Digits",
        "Pixels",
        0.95,
    ),
    "small": Size(
        {"DDPM++-32": _ddpmpp(32, 3000, "small/cifar"), "DDPM++-64": _ddpmpp(64, 3600, "small/cifar")},
        tuple(2**k for k in range(6, 16, 2)),
        2000,
        "CIFAR10",
    ),
    "paper": Size(
        {f"DDPM++-{width}": _ddpmpp(width, 40_000 * width / 64) for width in (64, 128, 256)},
        tuple(2**k for k in range(6, 16)),
        10_000,
        "CIFAR10",
    ),
}
"""By scale."""

_GRID_ROWS = 5


def name_of(system: str, count: int) -> str:
    """Name of a system trained on N images, in a study's folder."""
    return f"{system}_n{count}"


def regime_jobs(folder: Path, scale: Scale) -> list[Job]:
    """For each N: train every system and draw its bank, and draw the bank of the empirical optimum."""
    size, jobs, configs = SIZES[scale], [], configs_folder()
    seeds = f"0-{size.noises - 1}"
    for count in size.counts:
        for number, (system, settings) in enumerate(size.systems.items()):
            name = name_of(system, count)
            words = ("--data.subset", str(count), "--seed_everything", str(number), "--model.seed", str(number))
            files = [configs / f"{config}.yaml" for config in settings.configs]
            options = (*settings.options, *words, "--data.seed", str(number))
            jobs.append(fit_job(folder, name, files, options, seconds=settings.seconds))
            jobs.append(draw_job(folder, name, seeds, seconds=settings.draw_seconds * size.noises / 1000))
        images = ("--model.denoiser.images", size.data, "--model.denoiser.images.subset", str(count))
        optimum = configs / "digits" / "optimum.yaml"
        jobs.append(draw_job(folder, name_of(OPTIMUM, count), seeds, images, optimum))
    return longest_first({job.name: job for job in jobs})


def compared(folder: Path, scale: Scale, count: int) -> Comparison:
    """The systems that were trained on N images, and the optimum, with GL against those images."""
    size = SIZES[scale]
    names = [*size.systems, OPTIMUM]
    train = build("data", size.data, subset=count).images()
    banks = [bank_of(folder, name_of(name, count)) for name in names]
    return compare(banks, size.descriptor, train, size.threshold, names=names)


class Regimes(Study):
    """Networks of several widths and kinds trained on N images, for N from few to many; each with its own seeds.

    With few images RP is high and the systems agree with the empirical optimum of these images, which draws nothing
    else; with many RP is high again, the systems are far from the optimum, and draw new images; between, RP is lower.
    """

    name: ClassVar[str] = "regimes"
    figure: ClassVar[str] = "2, 16 and 17"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """For each N: train every system and draw its bank, and draw the bank of the empirical optimum."""
        return regime_jobs(folder, scale)

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``regimes.csv`` with RP and MAE of every pair at each N, ``memorization.csv`` with GL, and the figure."""
        size, found = SIZES[scale], {}
        for count in size.counts:
            found[count] = compared(folder, scale, count)
            found[count].write(folder / f"results_n{count}", figures=False)
        pairs = [row for count, each in found.items() for row in _pair_rows(count, each)]
        copies = [row for count, each in found.items() for row in _copy_rows(count, each)]
        write_rows(folder / "regimes.csv", pairs)
        write_rows(folder / "memorization.csv", copies)
        first = found[size.counts[0]]
        condition = f"{first.descriptor['name']} > {first.threshold:g}, n = {first.n:,} noises, 95 % intervals"
        chart = line_chart(_panels(size, pairs, copies), f"Training images of {size.data}: from few to many", condition)
        picture = above([rendered(chart), rendered(_grid(size, found))])
        save_pixels(picture, folder / "regimes.png")
        values = {f"rp/{row['first']}_{row['second']}_n{row['N']}": row["rp"] for row in pairs}
        values |= {f"gl/{row['system']}_n{row['N']}": row["gl"] for row in copies}
        log_figure(folder / "results", self.name, picture, values)
        return "\n\n".join(
            [
                f"RP, MAE and GL on {condition}",
                _text(size, pairs, copies),
                f"picture: {folder / 'regimes.png'}\ntables: {folder}/regimes.csv, {folder}/memorization.csv; of every "
                f"N: {folder}/results_n*\ncurves and images: tensorboard --logdir {folder}",
            ]
        )


def _pair_rows(count: int, found: Comparison) -> Iterator[dict[str, Any]]:
    rp, mae = found.scores["RP"], found.scores["MAE"]
    for one, other in rp.pairs():
        row = {"N": count, "first": found.names[one], "second": found.names[other], **rate_cells(rp, one, other)}
        likeness = {"mae": mae.rates, "mae_control": mae.control_rates}
        yield row | {key: float(rates[one, other]) for key, rates in likeness.items()}


def _copy_rows(count: int, found: Comparison) -> Iterator[dict[str, Any]]:
    for name, each in zip(found.names, found.memorization, strict=True):
        cells = counted(each.count, len(each.copies))
        yield {
            "N": count,
            "system": name,
            "gl": cells["rate"],
            "low": cells["low"],
            "high": cells["high"],
            "n": found.n,
        }


def _curve(name: str, rows: Sequence[Mapping[str, Any]], key: str, dashed: bool = False) -> Curve:
    columns = {column: [row[column] for row in rows] for column in ("N", key, "low", "high")}
    return Curve(name, columns["N"], columns[key], columns["low"], columns["high"], dashed)


def _panels(size: Size, pairs: Sequence[Mapping[str, Any]], copies: Sequence[Mapping[str, Any]]) -> list[Panel]:
    def of(one: str, other: str) -> list[Mapping[str, Any]]:
        return [row for row in pairs if (row["first"], row["second"]) == (one, other)]

    across, limits, systems = "training images N", (0.0, 1.0), [*size.systems]
    trained = [_curve(f"{one} - {other}", of(one, other), "rp") for one, other in combinations(systems, 2)]
    largest = [max(row["control"] for row in pairs if row["N"] == count) for count in size.counts]
    control = Curve("largest control", size.counts, largest, dashed=True)
    return [
        Panel([*trained, control], "RP of trained systems", across, "RP", limits=limits),
        Panel(
            [_curve(name, of(name, OPTIMUM), "rp") for name in systems],
            "RP with the optimum",
            across,
            "RP",
            limits=limits,
        ),
        Panel(
            [_curve(name, [row for row in copies if row["system"] == name], "gl") for name in systems],
            "GL: samples that are no copy",
            across,
            "GL",
            limits=limits,
        ),
    ]


def _grid(size: Size, found: Mapping[int, Comparison]) -> Figure:
    """Images of the same noises at the smallest, a middle and the largest N."""
    counts = (size.counts[0], size.counts[len(size.counts) // 2], size.counts[-1])
    banks = [
        (f"{name}, N = {count:,}", bank)
        for count in counts
        for name, bank in zip(found[count].names, found[count].banks, strict=True)
    ]
    images = torch.stack([bank.images[:_GRID_ROWS] for _, bank in banks], dim=1)
    seeds = [str(seed) for seed in banks[0][1].seeds[:_GRID_ROWS].tolist()]
    return image_grid(images, [name for name, _ in banks], seeds, "What they draw", "one row a noise")


def _text(size: Size, pairs: Sequence[Mapping[str, Any]], copies: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'':28}" + "".join(f"{f'N = {count:,}':>12}" for count in size.counts)]

    def line(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> None:
        lines.append(f"{name:28}" + "".join(f"{row[key]:12.3f}" for row in rows))

    for one, other in combinations([*size.systems, OPTIMUM], 2):
        line(f"RP {one} - {other}", [row for row in pairs if (row["first"], row["second"]) == (one, other)], "rp")
    for name in [*size.systems, OPTIMUM]:
        line(f"GL {name}", [row for row in copies if row["system"] == name], "gl")
    control = max(row["control"] for row in pairs if OPTIMUM not in (row["first"], row["second"]))
    widest = max(row["high"] - row["low"] for row in pairs) / 2
    lines.append(f"Wilson 95 % intervals: at most +-{widest:.3f}; largest control of trained pairs: {control:.3f}")
    return "\n".join(lines)
