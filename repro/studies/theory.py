"""Figure 4: how near trained systems come to the empirical optimum of their training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from repro.checkpoints.loading import load_training
from repro.comparison import compare
from repro.plots import Curve, Panel, line_chart, rendered, save_figure
from repro.records import rebuild
from repro.studies.base import Scale
from repro.studies.jobs import Job
from repro.studies.measuring import MeasuringStudy, log_figure
from repro.studies.regimes import OPTIMUM, SIZES, name_of, regime_jobs
from repro.studies.system_table import rate_cells, write_rows
from repro.studies.systems import bank_of, run_of
from repro.training.optimal_loss import losses_by_level, optimum_of

__all__ = ["Theory"]

_LEVELS = 12
_IMAGES = 512
_SHOWN_LOSSES = (1e-4, 2.0)


class Theory(MeasuringStudy):
    """The systems of ``regimes`` against the empirical optimum: RP with what it draws, and training loss with its loss.

    The loss of the averaged weights is taken on images of the training set, at fixed noises and at levels that are the
    middles of equally probable slices of the training times; beside it stands the smallest loss that these images
    allow. Given the folder of a finished ``regimes`` study (``--output runs/regimes_tiny``) only losses are measured.
    """

    name: ClassVar[str] = "theory"
    figure: ClassVar[str] = "4"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """The jobs of ``regimes``, and for each training a measurement of its losses."""
        size, jobs = SIZES[scale], regime_jobs(folder, scale)
        for count in size.counts:
            for system in size.systems:
                name = name_of(system, count)
                jobs.append(self.measure_job(folder, scale, name, [f"fit_{name}"], seconds=10))
        return jobs

    def measure(self, folder: Path, scale: Scale, part: str) -> Mapping[str, Any]:
        """Losses of one training and of the optimum of its images, level by level."""
        module = load_training(run_of(folder, part))
        data = rebuild(module.model.data_record)
        found = list(losses_by_level(module, optimum_of(module, data), data, _LEVELS, _IMAGES))
        trained, optimal = (sum(getattr(each, key) for each in found) / _LEVELS for key in ("trained", "optimal"))
        return {"trained": trained, "optimal": optimal, "images": _IMAGES, "levels": [each._asdict() for each in found]}

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``theory.csv`` with RP and losses at each N, ``levels.csv`` with losses level by level, and the figure."""
        size, rows, levels = SIZES[scale], [], []
        for count in size.counts:
            for system in size.systems:
                found = self.measured(folder, name_of(system, count))
                rows.append(_row(folder, scale, system, count) | _losses(found))
                levels += [
                    {"system": system, "N": count, "images": found["images"], **each} for each in found["levels"]
                ]
        write_rows(folder / "theory.csv", rows)
        write_rows(folder / "levels.csv", levels)
        figure = line_chart(_panels(size.counts, rows, levels), "Trained systems and the empirical optimum", _SUBTITLE)
        save_figure(figure, folder / "theory.png")
        values = {f"{key}/{row['system']}_n{row['N']}": row[key] for row in rows for key in ("rp", "excess")}
        log_figure(folder / "results", self.name, rendered(figure), values)
        tables = f"picture: {folder / 'theory.png'}\ntables: {folder}/theory.csv, {folder}/levels.csv"
        return "\n\n".join(["\n".join(_told(row) for row in rows), tables])


_SUBTITLE = "RP with what the optimum draws; losses of the averaged weights on training images at fixed noises"


def _row(folder: Path, scale: Scale, system: str, count: int) -> dict[str, Any]:
    size = SIZES[scale]
    banks = [bank_of(folder, name_of(name, count)) for name in (system, OPTIMUM)]
    found = compare(banks, size.descriptor, None, size.threshold)
    return {"system": system, "N": count, **rate_cells(found.scores["RP"], 0, 1)}


def _losses(found: Mapping[str, Any]) -> dict[str, Any]:
    """Losses over all levels, and the part by which the trained one is larger, over all and in the worst level."""
    excess = [each["trained"] / each["optimal"] - 1 for each in found["levels"]]
    return {
        "trained_loss": found["trained"],
        "optimal_loss": found["optimal"],
        "excess": found["trained"] / found["optimal"] - 1,
        "largest_gap": max(each["trained"] - each["optimal"] for each in found["levels"]),
        "levels_within_tenth": sum(each <= 0.1 for each in excess),
        "levels": len(excess),
    }


def _told(row: Mapping[str, Any]) -> str:
    return (
        f"{row['system']}, N = {row['N']:,}: RP with the optimum {row['rp']:.3f} ({row['low']:.3f}-{row['high']:.3f}, "
        f"shuffled {row['control']:.3f}, n = {row['n']:,}); loss {row['trained_loss']:.4g}, the optimum's "
        f"{row['optimal_loss']:.4g} ({row['excess']:+.0%}); at most {row['largest_gap']:.2g} "
        f"apart, within 10 % in {row['levels_within_tenth']} "
        f"of {row['levels']} levels"
    )


def _panels(
    counts: Sequence[int], rows: Sequence[Mapping[str, Any]], levels: Sequence[Mapping[str, Any]]
) -> list[Panel]:
    systems = list(dict.fromkeys(row["system"] for row in rows))
    likeness, losses = [], []
    for system in systems:
        own = [row for row in rows if row["system"] == system]
        low, high = ([row[key] for row in own] for key in ("low", "high"))
        likeness.append(Curve(system, counts, [row["rp"] for row in own], low, high))
        losses.append(Curve(system, counts, [row["trained_loss"] / row["optimal_loss"] for row in own]))
    losses.append(Curve("optimum", counts, [1.0] * len(counts), dashed=True))
    by_level = []
    for count in (counts[0], counts[-1]):
        own = [level for level in levels if (level["system"], level["N"]) == (systems[0], count)]
        places = [level["ratio"] for level in own]
        by_level.append(Curve(f"{systems[0]}, N = {count:,}", places, [level["trained"] for level in own]))
        by_level.append(Curve(f"optimum, N = {count:,}", places, [level["optimal"] for level in own], dashed=True))
    return [
        Panel(likeness, "RP with the optimum", "training images N", "RP", limits=(0.0, 1.0)),
        Panel(losses, "training loss over the smallest possible", "training images N", "ratio", ("log", "log")),
        Panel(by_level, "loss, level by level", "noise level sigma / alpha", "loss", ("log", "log"), _SHOWN_LOSSES),
    ]
