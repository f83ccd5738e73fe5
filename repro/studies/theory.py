"""Figure 4: how near trained systems come to the empirical optimum of their training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from repro.checkpoints.loading import load_training
from repro.plots import Curve, Panel, line_chart
from repro.records import rebuild
from repro.studies import SCALES, Measured, Plan, Report, Study, Trained, rate_cells, rate_text
from repro.studies.regimes import GAUSSIAN, OPTIMUM, Part, systems_of
from repro.training.optimal_loss import losses_by_level, optimum_of

__all__ = ["Theory"]

_LEVELS = 12
_IMAGES = 512
_SHOWN_LOSSES = (1e-4, 2.0)


class Theory(Study):
    """The systems of ``regimes`` against the empirical optimum: RP with what it draws, and training loss with its loss.

    The loss of the averaged weights is taken on images of the training set, at fixed noises and at levels that are the
    middles of equally probable slices of the training times; beside it stands the smallest loss that these images
    allow. Given the folder of a finished ``regimes`` study (``--output runs/regimes_tiny``) only losses are measured.
    """

    name: ClassVar[str] = "theory"
    figure: ClassVar[str] = "4"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> dict[int, dict[str, tuple[Part, Measured | None]]]:
        """Trains and draws as ``regimes`` does, and measures the losses of each training."""
        return {
            count: {name: (part, _measure(plan, part.run)) for name, part in systems.items()}
            for count, systems in systems_of(plan).items()
        }

    def report(self, report: Report, parts: dict[int, dict[str, tuple[Part, Measured | None]]]) -> None:
        """``theory.csv`` with RP and losses at each N, ``levels.csv`` with losses level by level, and the figure."""
        rows, levels = [], []
        for count, systems in parts.items():
            formulas = {name: systems[name][0].bank for name in (OPTIMUM, GAUSSIAN)}
            for name, (part, measured) in systems.items():
                if measured is not None:
                    compared, losses = report.compare({name: part.bank, **formulas}), measured.read()
                    score = compared.scores["RP"]
                    rows.append({"system": name, "N": count, **rate_cells(score, 0, 1)})
                    rows[-1] |= {f"{GAUSSIAN}_{key}": value for key, value in rate_cells(score, 0, 2).items()}
                    rows[-1] |= _losses(losses)
                    common = {"system": name, "N": count, "images": losses["images"]}
                    levels += [common | each for each in losses["levels"]]
        report.table("theory", rows, compared)
        report.table("levels", levels)
        values = {f"{key}/{row['system']}_n{row['N']}": row[key] for row in rows for key in ("rp", "excess")}
        title = "Trained systems, the empirical optimum and the Gaussian of the images"
        report.figure([line_chart(_panels([*parts], rows, levels), title, _SUBTITLE)], values=values)
        report.text(*(_line(row) for row in rows))


def _measure(plan: Plan, run: Trained | None) -> Measured | None:
    return None if run is None else plan.measure(run.name, _losses_of, run, seconds=10)


def _losses_of(run: Trained) -> Mapping[str, Any]:
    """Losses of one training and of the optimum of its images, level by level."""
    module = load_training(run.run)
    data = rebuild(module.model.data_record)
    levels = list(losses_by_level(module, optimum_of(module, data), data, _LEVELS, _IMAGES))
    trained, optimal = (sum(getattr(each, key) for each in levels) / _LEVELS for key in ("trained", "optimal"))
    return {"trained": trained, "optimal": optimal, "images": _IMAGES, "levels": [each._asdict() for each in levels]}


_SUBTITLE = "RP with what the formulas draw; losses of the averaged weights on training images at fixed noises"


def _losses(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Losses over all levels, and the part by which the trained one is larger, over all and in the worst level."""
    excess = [each["trained"] / each["optimal"] - 1 for each in measured["levels"]]
    return {
        "trained_loss": measured["trained"],
        "optimal_loss": measured["optimal"],
        "excess": measured["trained"] / measured["optimal"] - 1,
        "largest_gap": max(each["trained"] - each["optimal"] for each in measured["levels"]),
        "levels_within_tenth": sum(each <= 0.1 for each in excess),
        "levels": len(excess),
    }


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['system']}, N = {row['N']:,}: RP with the optimum {rate_text(row, 'rp')} ("
        f"shuffled {row['control']:.3f}, n = {row['n']:,}), with the Gaussian "
        f"{rate_text(row, 'gaussian_rp', 'gaussian_low', 'gaussian_high')}; loss {row['trained_loss']:.4g}, "
        f"the optimum's {row['optimal_loss']:.4g} ({row['excess']:+.0%}); at most {row['largest_gap']:.2g} "
        f"apart, within 10 % in {row['levels_within_tenth']} "
        f"of {row['levels']} levels"
    )


def _panels(
    counts: Sequence[int], rows: Sequence[Mapping[str, Any]], levels: Sequence[Mapping[str, Any]]
) -> list[Panel]:
    systems = list(dict.fromkeys(row["system"] for row in rows))
    likeness, linear, losses = [], [], []
    for system in systems:
        own = [row for row in rows if row["system"] == system]
        low, high = ([row[key] for row in own] for key in ("low", "high"))
        likeness.append(Curve(system, counts, [row["rp"] for row in own], low, high))
        low, high = ([row[f"{GAUSSIAN}_{key}"] for row in own] for key in ("low", "high"))
        linear.append(Curve(system, counts, [row[f"{GAUSSIAN}_rp"] for row in own], low, high))
        losses.append(Curve(system, counts, [row["trained_loss"] / row["optimal_loss"] for row in own]))
    losses.append(Curve("optimum", counts, [1.0] * len(counts), dashed=True))
    by_level = []
    for count in (counts[0], counts[-1]):
        own = [level for level in levels if (level["system"], level["N"]) == (systems[0], count)]
        places = [level["ratio"] for level in own]
        by_level.append(Curve(f"{systems[0]}, N = {count:,}", places, [level["trained"] for level in own]))
        by_level.append(Curve(f"optimum, N = {count:,}", places, [level["optimal"] for level in own], dashed=True))
    return [
        Panel(likeness, "RP with the empirical optimum", "training images N", "RP", limits=(0.0, 1.0)),
        Panel(linear, "RP with the Gaussian", "training images N", "RP", limits=(0.0, 1.0)),
        Panel(losses, "training loss over the smallest possible", "training images N", "ratio", ("log", "log")),
        Panel(by_level, "loss, level by level", "noise level sigma / alpha", "loss", ("log", "log"), _SHOWN_LOSSES),
    ]
