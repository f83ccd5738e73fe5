"""Figures 10, 21 and 22: how alike the images are with which different systems fill the same holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from repro.banks import Bank
from repro.comparison import Comparison, PairCounts
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.inverse.operators.masks import CentreMask
from repro.inverse.posterior import PosteriorSampler
from repro.inverse.tasks import restoration_metrics
from repro.metrics.functional.intervals import wilson_interval
from repro.noise import parse_seeds
from repro.plots import heat_map, image_grid, rate_chart
from repro.records import rebuild
from repro.samplers import DPMSolver
from repro.studies import SCALES, Drawn, Plan, Report, Study, controls_of, rate_cells, rate_text, train

__all__ = ["Inpaint"]

UNET, TRANSFORMER, BETWEEN = "U-Net", "transformer", "between"
_TRUTH = "truth"
_NARROW = {UNET: ("DDPMv1", "DDPMv3", "Multistagev1"), TRANSFORMER: ("DiT", "UViT")}
_PUBLISHED = {UNET: ("DDPMv1", "DDPMv2", "DDPMv3", "DDPMv4", "Multistagev1"), TRANSFORMER: ("DiT", "UViT")}
_CLASSES = {"tiny": _NARROW, "cpu": _NARROW, "small": _NARROW, "paper": _PUBLISHED}
_SAMPLER = {"sampler": "DPMSolver", "sampler.steps": 100, "sampler.order": 3, "sampler.t_end": 1e-3}
_SECONDS = {"tiny": (22.0, 28.0), "cpu": (250.0, 900.0), "small": (600.0, 2400.0), "paper": (18_000.0, 72_000.0)}
_GRID_ROWS = 5


@dataclass(frozen=True)
class _Problem:
    """A part of the study: a mask, or none for images drawn freely, and which images are measured."""

    name: str
    title: str
    side: float | None = None
    observation: int | None = None

    def settings(self) -> dict[str, Any]:
        """Settings of ``repro predict``."""
        if self.side is None:
            return {}
        mask = {"problem.operator": "CentreMask", "problem.operator.side": self.side}
        seen = {} if self.observation is None else {"problem.observation": self.observation}
        return {"task": "inpaint", **mask, **seen}

    def mask(self) -> CentreMask:
        """The mask of a problem that has one."""
        if self.side is None:
            raise ValueError(f"{self.name} has no mask")
        return CentreMask(self.side)


def _problems(observation: int) -> list[_Problem]:
    masks = (("easy", 16 / 32), ("hard", 25 / 32))
    return [
        _Problem("free", "no measurement"),
        *(_Problem(f"{name}_fixed", f"{name} mask, one image", side, observation) for name, side in masks),
        *(_Problem(f"{name}_distinct", f"{name} mask, an image a noise", side) for name, side in masks),
    ]


class Inpaint(Study):
    """U-Nets and transformers fill the centre of the same images from the same noises, under two masks.

    The masks hide 16/32 (easy) and 25/32 (hard) of the side. They lie on one image for all noises, or on an image of
    its own for each noise; images drawn freely stand beside them. All systems have the continuous or discrete VP kernel
    and draw with DPM-Solver of order 3 in 100 evaluations, pulled with step size 1. So neither kernel nor sampler, in
    whose units the step size is, tells the classes apart. At the scale ``tiny`` the systems are narrow networks on the
    8 x 8 digits, at ``cpu`` and ``small`` narrow networks on CIFAR-10, at 16 x 16 and at 32 x 32, at ``paper`` the
    paper's. What is measured are training images.

    Args:
        trained: Folder of a study that trained these systems, such as ``runs/similarity_tiny``: its runs are drawn
            from, and nothing is trained.
        observation: Number of the one image.
        seeds: Which noises; by default 0-999 (``tiny``, ``cpu``), 0-1999 or, as in the paper, 0-9999, by scale.
    """

    name: ClassVar[str] = "inpaint"
    figure: ClassVar[str] = "10, 21 and 22"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def __init__(self, trained: str | None = None, observation: int = 0, seeds: str | None = None) -> None:
        if observation < 0:
            raise UserError(f"observation is {observation}; give the number of an image, at least 0")
        if seeds is not None:
            parse_seeds(seeds)
        self.trained, self.observation, self.seeds = trained, observation, seeds

    def plan(self, plan: Plan) -> dict[_Problem, dict[str, Drawn]]:
        """Trains the systems, unless they are there, and draws a bank of each for each problem."""
        free, steered = _SECONDS[plan.scale.name]
        names = [name for each in _CLASSES[plan.scale.name].values() for name in each]
        runs = {name: _run_there(self.trained, name) if self.trained else train(plan, name) for name in names}
        return {
            problem: {
                name: plan.draw(
                    f"{problem.name}_{name}",
                    run,
                    self.seeds,
                    {**_SAMPLER, **problem.settings()},
                    free if problem.side is None else steered,
                )
                for name, run in runs.items()
            }
            for problem in _problems(self.observation)
        }

    def report(self, report: Report, parts: dict[_Problem, dict[str, Drawn]]) -> None:
        """RP within and between the classes as text, CSV, PNG and TensorBoard log, and how good the images are."""
        pairs, classes, restored, panels = [], [], [], []
        for problem, banks in parts.items():
            compared = _compared(report, problem, banks)
            report.comparison(f"results/{problem.name}", compared)
            kinds = _Kinds(list(banks), report.scale.name)
            pairs += _pair_rows(compared, problem, kinds)
            classes += _class_rows(compared, problem, kinds)
            restored += _restored_rows(compared, problem, kinds)
            panels.append([*_pictures(compared, problem, kinds)])
        for name, rows in (("pairs", pairs), ("classes", classes), ("restored", restored)):
            report.table(name, rows, compared)
        values = {f"{row['problem']}/{row['class']}": row["rp"] for row in classes}
        free, easy, hard, easy_each, hard_each = panels
        report.figure([_chart(classes), *free], [*easy, *hard], [*easy_each, *hard_each], values=values)
        report.text(*_lines(classes, restored, compared))


def _run_there(folder: str, name: str) -> Path:
    run = Path(folder, "runs", name)
    if not (run / "checkpoints" / "last.ckpt").is_file():
        raise UserError(
            f"no run of {name} in {folder}/runs; name the folder of a study that trained it (repro study similarity), "
            "or leave --trained out"
        )
    return run


class _Kinds:
    """Which pairs of systems are of one class of networks, and which lie between the two."""

    def __init__(self, systems: Sequence[str], scale: str) -> None:
        self.systems = list(systems)
        kinds = {name: kind for kind, names in _CLASSES[scale].items() for name in names}
        self.pairs = [
            (kinds[first] if kinds[first] == kinds[second] else BETWEEN, (i, j))
            for (i, first), (j, second) in combinations(enumerate(self.systems), 2)
        ]


def _compared(report: Report, problem: _Problem, banks: dict[str, Drawn]) -> Comparison:
    """The systems of a problem, and the truth as the last of them where there is one."""
    if problem.side is None:
        return report.compare(banks)
    first = next(iter(banks.values())).open()
    truth = Bank.from_images(_truths(first, problem, first.manifest.seeds), first.manifest.seeds)
    metrics = restoration_metrics(problem.mask(), truth.manifest.image_shape)
    return report.compare({**banks, _TRUTH: truth}, metrics=[metrics["psnr"], metrics["residual"]])


def _truths(bank: Bank, problem: _Problem, seeds: Sequence[int]) -> Tensor:
    data = rebuild(bank.manifest.data)
    return PosteriorSampler(DPMSolver(), problem.mask(), data, problem.observation).truths(seeds)


def _pair_rows(compared: Comparison, problem: _Problem, kinds: _Kinds) -> list[dict[str, Any]]:
    score, rows = compared.scores["RP"], []
    for kind, (i, j) in kinds.pairs:
        row = {"problem": problem.name, "first": compared.names[i], "second": compared.names[j], "class": kind}
        rows.append(row | rate_cells(score, i, j))
    return rows


def _class_rows(compared: Comparison, problem: _Problem, kinds: _Kinds) -> list[dict[str, Any]]:
    """RP of each class, its pairs pooled, and how far the classes' own pairs are above those between them."""
    score = compared.scores["RP"]
    ahead, error = _difference(score, kinds)
    rows = []
    for kind in (UNET, TRANSFORMER, BETWEEN):
        places = [pair for named, pair in kinds.pairs if named == kind]
        n = score.n * len(places)
        hits = sum(int(score.counts[pair]) for pair in places)
        controls = sum(round(float(controls_of(score)[pair]) * score.n) for pair in places)
        low, high = wilson_interval(hits, n)
        row = {"problem": problem.name, "title": problem.title, "class": kind, "pairs": len(places), "n": n}
        row |= {"rp": hits / n, "low": low, "high": high, "control": controls / n}
        rows.append(row | {"within_minus_between": ahead, "standard_error": error})
    return rows


def _difference(score: PairCounts, kinds: _Kinds) -> tuple[float, float]:
    """Mean RP of pairs within a class minus that of pairs between them, and its standard error over the noises."""
    within: list[Any] = []
    between: list[Any] = []
    for kind, pair in kinds.pairs:
        (between if kind == BETWEEN else within).append(score.outcomes[pair].matches)
    each = np.mean(within, axis=0) - np.mean(between, axis=0)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


def _restored_rows(compared: Comparison, problem: _Problem, kinds: _Kinds) -> list[dict[str, Any]]:
    """How near each system comes to the truth and its measurements."""
    if problem.side is None:
        return []
    score, last, rows = compared.scores["RP"], len(compared.names) - 1, []
    psnr, residual = (compared.values[name].values[:, last] for name in ("PeakSignalNoiseRatio", "Residual"))
    for index, name in enumerate(kinds.systems):
        row = {"problem": problem.name, "system": name, "psnr": float(psnr[index]), "residual": float(residual[index])}
        rows.append(row | rate_cells(score, index, last, "truth"))
    return rows


def _lines(
    classes: Sequence[dict[str, Any]], restored: Sequence[dict[str, Any]], compared: Comparison
) -> Iterator[str]:
    yield (
        f"Images alike from the same noise: {compared.descriptor['name']} > {compared.threshold:g}, "
        f"n = {compared.n:,} noises; in brackets Wilson 95 % intervals, the pairs of a class "
        "pooled as if independent; control: shuffled noises"
    )
    for row in classes:
        if row["class"] == UNET:
            yield ""
            yield row["title"]
        yield (f"  {row['class']} ({row['pairs']} pairs): RP {rate_text(row, 'rp')}, control {row['control']:.3f}")
        if row["class"] == BETWEEN:
            half = 1.96 * row["standard_error"]
            ahead = row["within_minus_between"]
            yield f"  within minus between: {ahead:+.3f} ({ahead - half:+.3f} to {ahead + half:+.3f}, over the noises)"
            for each in restored:
                if each["problem"] == row["problem"]:
                    yield (
                        f"  {each['system']}: PSNR {each['psnr']:.2f} dB, residual {each['residual']:.4f}, like the "
                        f"truth {rate_text(each, 'truth')}, control {each['control']:.3f}"
                    )


def _chart(classes: Sequence[dict[str, Any]]) -> Figure:
    rates, intervals, names = [], [], []
    for row in classes:
        rates.append(row["rp"])
        intervals.append((row["low"], row["high"]))
        names.append(f"{row['title']}: {row['class']}")
        if row["class"] == BETWEEN:
            control = max(each["control"] for each in classes if each["problem"] == row["problem"])
            rates.append(control)
            intervals.append((control, control))
            names.append(f"{row['title']}: highest control")
    subtitle = "RP, pairs of a class pooled, with 95 % intervals; control: shuffled noises"
    return rate_chart(
        rates, intervals, names, "Inpainting from the same noise, two classes of networks", subtitle, "RP"
    )


def _pictures(compared: Comparison, problem: _Problem, kinds: _Kinds) -> Iterator[Figure]:
    names, score = kinds.systems, compared.scores["RP"]
    seeds = compared.banks[0].seeds[:_GRID_ROWS].tolist()
    columns = {name: bank.images[: len(seeds)] for name, bank in zip(compared.names, compared.banks, strict=True)}
    truth = columns.pop(_TRUTH, None)
    if truth is not None:
        seen = to_uint8(problem.mask()(to_float(truth)))
        columns = {_TRUTH: truth, "measured": seen} | columns
    images, rows = torch.stack([*columns.values()], dim=1), [f"noise {seed}" for seed in seeds]
    yield image_grid(images, list(columns), rows, problem.title, "one row a noise, one column a system")
    condition = (
        f"{compared.descriptor['name']} > {compared.threshold:g}, n = {score.n:,}; below the diagonal: shuffled noises"
    )
    shown, control = (rates[: len(names), : len(names)] for rates in (score.rates, controls_of(score)))
    yield heat_map(shown, names, f"RP, {problem.title}", condition, control)
