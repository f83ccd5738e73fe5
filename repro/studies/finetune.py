"""Figures 11 and 23: fine-tuning on N images of another set, against training on them from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.banks import Bank
from repro.comparison import Comparison, compare
from repro.descriptors.base import features_of_bank
from repro.descriptors.default import default_descriptor
from repro.descriptors.pixels import Pixels
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.similarity import nearest
from repro.plots import Curve, Panel, above, image_grid, line_chart, rendered, save_pixels
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job, longest_first
from repro.studies.measuring import log_figure
from repro.studies.system_table import write_rows
from repro.studies.systems import SEEDS, bank_of, configs_folder, draw_job, fit_job, run_of

__all__ = ["Finetune"]


class _Size(NamedTuple):
    """Options that name the first and the second set, numbers of images N, overlays, further options of every training,
    seconds of a training and of a bank on one core (tiny) or GPU."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    counts: tuple[int, ...]
    overlays: tuple[str, ...]
    common: tuple[str, ...]
    seconds: tuple[float, float]


_LOW, _HIGH = (("--data.classes", classes) for classes in ("[0,1,2,3,4]", "[5,6,7,8,9]"))
_COARSE = ("--data.resize", "16")
_AS_TUNED = ("--data.batch_size", "128", "--trainer.max_steps", "1562500")
_CIFAR = (("--data", "CIFAR100"), ("--data", "CIFAR10"))
_SIZES = {
    "tiny": _Size(_LOW, _HIGH, (16, 64, 256, 896), ("small/digits",), ("--data.batch_size", "64"), (60, 15)),
    "small": _Size(
        (*_CIFAR[0], *_COARSE), (*_CIFAR[1], *_COARSE), (64, 1024, 8192, 50_000), ("small/cifar",), (), (1800, 300)
    ),
    "paper": _Size(*_CIFAR, (64, 1024, 4096, 16_384, 50_000), (), _AS_TUNED, (150_000, 4000)),
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
    than to all of the first. At the scale ``tiny`` the first set are the digits 0 to 4, the second 5 to 9; at ``small``
    CIFAR-100 and CIFAR-10 at 16x16 pixels and a narrow network; at ``paper`` CIFAR-100 and CIFAR-10.
    """

    name: ClassVar[str] = "finetune"
    figure: ClassVar[str] = "11 and 23"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """Trains the start; for each N, mode and seed trains a model; draws a bank of each."""
        size, jobs = _SIZES[scale], []
        overlays = [f"{name}.yaml" for name in size.overlays]
        tuned, scratch = (
            [configs_folder() / name for name in (config, *overlays)]
            for config in ("finetune_cifar.yaml", "edm_cifar.yaml")
        )
        seconds, draw_seconds = size.seconds
        jobs.append(fit_job(folder, _START, scratch, (*size.first, *size.common), seconds=seconds))
        jobs.append(draw_job(folder, _START, SEEDS[scale], seconds=draw_seconds))
        for count in size.counts:
            for mode, seed in _TRAININGS:
                number, name = str(seed + 1), _name(mode, seed, count)
                options = (*size.second, "--data.subset", str(count), *size.common)
                options += ("--seed_everything", number, "--model.seed", number, "--data.seed", number)
                if mode == "tuned":
                    options += ("--model.start", str(run_of(folder, _START)))
                    jobs.append(fit_job(folder, name, tuned, options, [_START], seconds))
                else:
                    jobs.append(fit_job(folder, name, scratch, options, (), seconds))
                jobs.append(draw_job(folder, name, SEEDS[scale], seconds=draw_seconds))
        return longest_first({job.name: job for job in jobs})

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``finetune.csv``, the figure (curves over N above images), comparisons of each N, and a TensorBoard log."""
        rows, found = [], {}
        for count in _SIZES[scale].counts:
            found[count] = _compared(folder, scale, count)
            found[count].write(folder / "results" / f"n{count}")
            rows += [*_rp_rows(found[count], count), *_gl_rows(found[count], count)]
        rows += _share_rows(found, scale)
        write_rows(folder / "finetune.csv", rows)
        sheet = above([rendered(_chart(rows, found)), rendered(_grid(found))])
        save_pixels(sheet, folder / "finetune.png")
        values = {f"{row['score']}/{row['of'].replace(' ', '_')}/n{row['N']}": row["rate"] for row in rows}
        log_figure(folder / "results", self.name, sheet, values)
        places = [f"picture: {folder / 'finetune.png'}", f"tables: {folder / 'finetune.csv'}, {folder / 'results'}"]
        places.append(f"curves and images: tensorboard --logdir {folder}")
        return "\n".join([*_told(rows, found), "", *places])


def _name(mode: str, seed: int, count: int) -> str:
    return f"{mode}{seed}_n{count}"


def _compared(folder: Path, scale: Scale, count: int) -> Comparison:
    """The four models of one N and the start, GL against the N images."""
    names = [*(_name(mode, seed, count) for mode, seed in _TRAININGS), _START]
    banks = [Bank.open(bank_of(folder, name)) for name in names]
    images = banks[0].training_images()
    like = ("Pixels", 0.95) if scale == "tiny" else (None, None)
    return compare(banks, like[0], [images] * len(_TRAININGS) + [None], like[1], names=names)


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


def _rp_rows(found: Comparison, count: int) -> Iterator[dict[str, Any]]:
    score = found.scores["RP"]
    for of, place in _PAIRS.items():
        yield _row(count, "RP", of, int(score.counts[place]), score.n, float(score.control_rates[place]))


def _gl_rows(found: Comparison, count: int) -> Iterator[dict[str, Any]]:
    for (mode, seed), memorized in zip(_TRAININGS, found.memorization, strict=False):
        yield _row(count, "GL", f"{_MODES[mode]}, seed {seed + 1}", memorized.count, found.n)


def _share_rows(found: Mapping[int, Comparison], scale: Scale) -> Iterator[dict[str, Any]]:
    """Samples that are nearer to the whole second set than to the first."""
    last = found[max(found)]
    descriptor = Pixels() if scale == "tiny" else default_descriptor(last.banks[0].manifest.image_shape)
    first, second = (descriptor.features(last.banks[place].training_images()) for place in (-1, 0))
    for count, each in found.items():
        for place, of in ((0, _TUNED), (2, _SCRATCH), (4, _START)):
            features = features_of_bank(each.banks[place], descriptor)
            nearer = nearest(features, second)[0] > nearest(features, first)[0]
            yield _row(count, "share of the second set", of, int(nearer.sum()), len(nearer))


def _of(rows: Sequence[Mapping[str, Any]], score: str, of: str, **style: Any) -> Curve:
    own = [row for row in rows if (row["score"], row["of"]) == (score, of)]
    places, values, low, high = ([row[key] for row in own] for key in ("N", "rate", "low", "high"))
    return Curve(of.removesuffix(", seed 1"), places, values, low, high, **style)


def _chart(rows: Sequence[Mapping[str, Any]], found: Mapping[int, Comparison]) -> Figure:
    some, axis = next(iter(found.values())), "images N of the second set"
    control = [max(row["control"] for row in rows if row["N"] == count and row["score"] == "RP") for count in found]
    rp = [_of(rows, "RP", of) for of in _PAIRS] + [Curve("highest control", list(found), control, dashed=True)]
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


def _grid(found: Mapping[int, Comparison]) -> Figure:
    banks = {_START: next(iter(found.values())).banks[-1]}
    for place, kind in ((0, "tuned"), (2, "scratch")):
        banks |= {f"{kind} {count:,}": each.banks[place] for count, each in found.items()}
    images = torch.stack([bank.images[:_GRID_ROWS] for bank in banks.values()], dim=1)
    seeds = [f"noise {seed}" for seed in banks[_START].seeds[:_GRID_ROWS].tolist()]
    return image_grid(images, list(banks), seeds, "What they draw", "one row a noise, one column a model and its N")


def _told(rows: Sequence[Mapping[str, Any]], found: Mapping[int, Comparison]) -> Iterator[str]:
    some = next(iter(found.values()))
    yield (
        f"Attention layers fine-tuned on N images, against training from scratch; {some.descriptor['name']} > "
        f"{some.threshold:g}, n = {some.n:,} noises; in brackets Wilson 95 % intervals; control: shuffled noises"
    )
    for count in found:
        yield ""
        yield f"N = {count:,}"
        for row in rows:
            if row["N"] == count:
                control = "" if row["control"] is None else f", control {row['control']:.3f}"
                yield f"  {row['score']}, {row['of']}: {row['rate']:.3f} ({row['low']:.3f}-{row['high']:.3f}){control}"
