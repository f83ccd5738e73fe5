"""Figures 11 and 23: fine-tuning on N images of another set, against training on them from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.descriptors.base import features_of_bank
from repro.errors import UserError
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.similarity import nearest
from repro.plots import Curve, Panel, image_grid, line_chart
from repro.studies import SCALES, Drawn, Judge, Plan, Report, Study, controls_of, rate_text, seeded

__all__ = ["Finetune"]


class _Size(NamedTuple):
    """Settings that choose the first and the second set, numbers of images N, further settings of every training,
    seconds of a training and of a bank on one core (tiny) or GPU."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    counts: tuple[int, ...]
    common: Mapping[str, Any]
    seconds: tuple[float, float]


_COARSE = {"data.resize": 16}
_AS_TUNED = {"data.batch_size": 128, "trainer.max_steps": 1_562_500}
_SIZES = {
    "tiny": _Size(
        {"data.classes": [0, 1, 2, 3, 4]},
        {"data.classes": [5, 6, 7, 8, 9]},
        (16, 64, 256, 896),
        {"data.batch_size": 64},
        (60, 15),
    ),
    "cpu": _Size({"data": "CIFAR100"}, {}, (64, 1024, 8192, 50_000), {}, (1000, 300)),
    "small": _Size(
        {"data": "CIFAR100", **_COARSE}, {"data": "CIFAR10", **_COARSE}, (64, 1024, 8192, 50_000), {}, (1800, 300)
    ),
    "paper": _Size(
        {"data": "CIFAR100"}, {"data": "CIFAR10"}, (64, 1024, 4096, 16_384, 50_000), _AS_TUNED, (150_000, 4000)
    ),
}
_START = "start"
_TUNED, _SCRATCH = "fine-tuned", "from scratch"
_MODES = {"tuned": _TUNED, "scratch": _SCRATCH}
_TRAININGS = tuple((mode, seed) for mode in _MODES for seed in (0, 1))
_PAIRS = {
    f"{_TUNED} twice": (0, 1),
    f"{_SCRATCH} twice": (2, 3),
    f"{_TUNED} and {_SCRATCH}": (0, 2),
    f"{_TUNED} and its start": (0, 4),
    f"{_SCRATCH} and the start": (2, 4),
}
_GRID_ROWS = 6


class Finetune(Study):
    """An EDM model of one set, its attention layers fine-tuned on N images of another, beside training from scratch.

    Both see the same N images, as many steps and as large batches, without augmentation, and each is trained under two
    seeds. The paper does not say between which models the RP of figure 11 is taken; here it is taken between two models
    of a kind (as in figure 2), between a fine-tuned one and one from scratch, and between each and the start. GL counts
    copies of the N images. The share of the second set counts samples that are nearer to an image of the second set
    than to all of the first. At the scale ``tiny`` the first set are the digits 0 to 4, the second 5 to 9; at
    ``cpu`` and ``small`` CIFAR-100 and CIFAR-10 at 16x16 pixels and a narrow network; at ``paper`` CIFAR-100 and
    CIFAR-10.

    Args:
        first: Folder or archive of images of the first set, such as CIFAR-100 where torchvision cannot download it;
            ``--images`` gives those of the second.

    Raises:
        UserError: nothing is there.
    """

    name: ClassVar[str] = "finetune"
    figure: ClassVar[str] = "11 and 23"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def __init__(self, first: str | None = None) -> None:
        if first is not None and not Path(first).exists():
            raise UserError(f"nothing is at {first}; give --first a folder, zip or tar of images")
        self.first = first

    def plan(self, plan: Plan) -> dict[int, dict[str, Drawn]]:
        """Trains the start; for each N, mode and seed trains a model; draws a bank of each; by N, then by name."""
        size, overlays = _SIZES[plan.scale.name], plan.scale.overlays
        seconds, draw_seconds = size.seconds
        chosen = size.first if self.first is None else {"data": "ImageArchive", "data.path": self.first}
        start = plan.fit(_START, ["edm_cifar", *overlays], {**chosen, **size.common}, seconds=seconds)
        first = plan.draw(_START, start, seconds=draw_seconds)
        parts: dict[int, dict[str, Drawn]] = {}
        for count in size.counts:
            parts[count] = {}
            for mode, seed in _TRAININGS:
                name = f"{mode}{seed}_n{count}"
                settings = {**size.second, "data.subset": count, **size.common, **seeded(seed + 1)}
                if mode == "tuned":
                    settings["model.start"] = str(start.run)
                    run = plan.fit(name, ["finetune_cifar", *overlays], settings, [start], seconds)
                else:
                    run = plan.fit(name, ["edm_cifar", *overlays], settings, seconds=seconds)
                parts[count][name] = plan.draw(name, run, seconds=draw_seconds)
            parts[count][_START] = first
        return parts

    def report(self, report: Report, parts: dict[int, dict[str, Drawn]]) -> None:
        """``finetune.csv``, the figure (curves over N above images), comparisons of each N, and a TensorBoard log."""
        rows, by_count = [], {}
        for count, banks in parts.items():
            images = next(iter(banks.values())).open().training_images()
            compared = by_count[count] = report.compare(banks, [images] * len(_TRAININGS) + [None])
            report.comparison(f"results/n{count}", compared)
            rows += [*_rp_rows(compared, count), *_gl_rows(compared, count)]
        rows += _share_rows(by_count, report.scale.judge)
        report.table("finetune", rows, compared)
        values = {f"{row['score']}/{row['of'].replace(' ', '_')}/n{row['N']}": row["rate"] for row in rows}
        report.figure([_chart(rows, by_count)], [_grid(by_count)], values=values)
        report.text(*_lines(rows, by_count))


def _row(count: int, score: str, of: str, hits: int, n: int, control: float | None = None) -> dict[str, Any]:
    low, high = wilson_interval(hits, n)
    return {
        "N": count,
        "score": score,
        "of": of,
        "rate": hits / n,
        "low": low,
        "high": high,
        "control": control,
        "n": n,
    }


def _rp_rows(compared: Comparison, count: int) -> Iterator[dict[str, Any]]:
    score = compared.scores["RP"]
    for of, index in _PAIRS.items():
        yield _row(count, "RP", of, int(score.counts[index]), score.n, float(controls_of(score)[index]))


def _gl_rows(compared: Comparison, count: int) -> Iterator[dict[str, Any]]:
    for (mode, seed), memorized in zip(_TRAININGS, compared.memorization, strict=False):
        if memorized is not None:
            yield _row(count, "GL", f"{_MODES[mode]}, seed {seed + 1}", memorized.count, compared.n)


def _share_rows(compared: Mapping[int, Comparison], judge: Judge) -> Iterator[dict[str, Any]]:
    """Samples that are nearer to the whole second set than to the first."""
    last = compared[max(compared)]
    descriptor = judge.descriptor(last.banks[0].manifest.image_shape)
    first, second = (descriptor.features(last.banks[index].training_images()) for index in (-1, 0))
    for count, each in compared.items():
        for index, of in ((0, _TUNED), (2, _SCRATCH), (4, _START)):
            features = features_of_bank(each.banks[index], descriptor)
            nearer = nearest(features, second)[0] > nearest(features, first)[0]
            yield _row(count, "share of the second set", of, int(nearer.sum()), len(nearer))


def _of(rows: Sequence[Mapping[str, Any]], score: str, of: str, **style: Any) -> Curve:
    own = [row for row in rows if (row["score"], row["of"]) == (score, of)]
    places, values, low, high = ([row[key] for row in own] for key in ("N", "rate", "low", "high"))
    return Curve(of.removesuffix(", seed 1"), places, values, low, high, **style)


def _chart(rows: Sequence[Mapping[str, Any]], compared: Mapping[int, Comparison]) -> Figure:
    some, axis = next(iter(compared.values())), "images N of the second set"
    control = [max(row["control"] for row in rows if row["N"] == count and row["score"] == "RP") for count in compared]
    rp = [_of(rows, "RP", of) for of in _PAIRS] + [Curve("highest control", list(compared), control, dashed=True)]
    gl = [_of(rows, "GL", f"{kind}, seed 1") for kind in (_TUNED, _SCRATCH)]
    share = [_of(rows, "share of the second set", of, dashed=of == _START) for of in (_TUNED, _SCRATCH, _START)]
    panels = [
        Panel(curves, title, axis, up, limits=(-0.02, 1.02))
        for curves, title, up in (
            (rp, "same noise, same image", "RP"),
            (gl, "no copy of the N images", "GL"),
            (share, "nearer to the second set than to the first", "share"),
        )
    ]
    condition = f"{some.descriptor['name']} > {some.threshold:g}, n = {some.n:,}, Wilson 95 % intervals"
    return line_chart(panels, "Attention layers fine-tuned on N images, and training from scratch", condition)


def _grid(compared: Mapping[int, Comparison]) -> Figure:
    banks = {_START: next(iter(compared.values())).banks[-1]}
    for index, kind in ((0, "tuned"), (2, "scratch")):
        banks |= {f"{kind} {count:,}": each.banks[index] for count, each in compared.items()}
    images = torch.stack([bank.images[:_GRID_ROWS] for bank in banks.values()], dim=1)
    seeds = [f"noise {seed}" for seed in banks[_START].seeds[:_GRID_ROWS].tolist()]
    return image_grid(images, list(banks), seeds, "What they draw", "one row a noise, one column a model and its N")


def _lines(rows: Sequence[Mapping[str, Any]], compared: Mapping[int, Comparison]) -> Iterator[str]:
    some = next(iter(compared.values()))
    yield (
        f"Attention layers fine-tuned on N images, against training from scratch; {some.descriptor['name']} > "
        f"{some.threshold:g}, n = {some.n:,} noises; in brackets Wilson 95 % intervals; control: shuffled noises"
    )
    for count in compared:
        yield ""
        yield f"N = {count:,}"
        for row in rows:
            if row["N"] == count:
                control = "" if row["control"] is None else f", control {row['control']:.3f}"
                yield f"  {row['score']}, {row['of']}: {rate_text(row)}{control}"
