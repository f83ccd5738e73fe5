"""Figure 5: how the predicted noise comes to that of the distribution as the training set grows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from repro.analysis import score_error_by_ratio
from repro.data.mixture import LowRankMixture
from repro.denoisers import LowRankMixtureDenoiser
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.similarity import cosine, exceeds
from repro.noise import draw_noise
from repro.plots import Curve, Panel, line_chart
from repro.records import rebuild
from repro.studies import Drawn, Measured, Plan, Report, Study, Trained

__all__ = ["Mog"]


class _Size(NamedTuple):
    """The config that is trained, dimensions d, numbers of images N, seconds a training, further settings."""

    config: str
    ranks: tuple[int, ...]
    counts: tuple[int, ...]
    seconds: float
    settings: Mapping[str, Any]


_PIXELS = 48
_ALL = 99_000
_NARROW = {"model.network.width": 192, "trainer.max_steps": 2500}
_SIZES = {
    "tiny": _Size("mlp", (3, 5, 7), (32, 256, 2048, _ALL), 60, _NARROW),
    "small": _Size("mlp", (3, 4, 5, 6, 7, 8), (16, 64, 256, 1024, 4096, 16_384, _ALL), 95, {}),
    "paper": _Size("edm", (3, 4, 5, 6, 7, 8), tuple(2**k for k in range(4, 17)), 3000, {}),
}
_LEVELS = 16


class Mog(Study):
    """Denoisers trained on N samples of a mixture of low-rank Gaussians, against its exact denoiser.

    The score error is the mean squared distance of the predicted noises over fresh samples and over the noise levels
    of the training, for planes of several dimensions d. At the largest N, what the trained model draws is compared,
    noise by noise, with what the exact denoiser draws.
    """

    name: ClassVar[str] = "mog"
    figure: ClassVar[str] = "5"

    def plan(self, plan: Plan) -> dict[int, _Part]:
        """For each d and N: train and measure; for each d: draw at the largest N, and from the exact denoiser."""
        size = _SIZES[plan.scale.name]
        return {rank: _of_rank(plan, size, rank) for rank in size.ranks}

    def report(self, report: Report, parts: dict[int, _Part]) -> None:
        """Writes ``mog.csv`` with the score error for each d and N, ``samples.csv``, and the figure."""
        errors = {rank: {count: each.read() for count, each in part.errors.items()} for rank, part in parts.items()}
        rows = [
            {"d": rank, "N": count, "score_error": measured["score_error"], "n": measured["samples"]}
            for rank, counts in errors.items()
            for count, measured in counts.items()
        ]
        samples = [_agreement(rank, max(part.errors), part.drawn, part.exact) for rank, part in parts.items()]
        report.table("mog", rows)
        report.table("samples", samples)
        values = {f"score_error/d{row['d']}_n{row['N']}": row["score_error"] for row in rows}
        report.figure([line_chart(_panels(errors), "Score error on the mixture", _SUBTITLE)], values=values)
        report.text(*_lines(errors, samples))


class _Part(NamedTuple):
    """Of one dimension d: the score error by N, and banks of the largest N and of the exact denoiser."""

    errors: dict[int, Measured]
    drawn: Drawn
    exact: Drawn


def _of_rank(plan: Plan, size: _Size, rank: int) -> _Part:
    errors = {}
    settings = {"data.rank": rank, "model.parameterization.sigma_data": round(math.sqrt(rank / _PIXELS), 3)}
    for count in size.counts:
        own = {**settings, "data.subset": count, **size.settings}
        run = plan.fit(f"d{rank}_n{count}", f"mixture/{size.config}", own, seconds=size.seconds)
        errors[count] = plan.measure(run.name, _score_error, run, seconds=2)
    exact = {"model.denoiser.rank": rank, "task": "unconditional"}
    return _Part(errors, plan.draw(run.name, run), plan.draw(f"exact_d{rank}", "mixture/exact", settings=exact))


def _score_error(run: Trained) -> Mapping[str, Any]:
    """Score error of one trained model on the samples that no training saw, level by level."""
    model = run.load()
    data: LowRankMixture = rebuild(model.data_record)
    kernel = model.denoiser.kernel
    exact = LowRankMixtureDenoiser(kernel, data.shape, data.components, data.rank, data.bases_seed)
    x_0 = data.held_out()[0]
    eps = draw_noise(range(len(x_0)), data.shape)
    times = model.times.of_uniform((torch.arange(_LEVELS) + 0.5) / _LEVELS, kernel)
    ratios = kernel.ratio(times.double()).tolist()
    errors = score_error_by_ratio(model.denoiser, exact, x_0, eps, ratios)
    mean = sum(each.mean for each in errors) / _LEVELS
    return {"score_error": mean, "samples": len(x_0), "ratios": [each._asdict() for each in errors]}


def _panels(errors: Mapping[int, Mapping[int, Any]]) -> list[Panel]:
    """Score error over N for each d, and over the noise levels for the largest d."""
    scales: tuple[Literal["log"], Literal["log"]] = ("log", "log")
    over_n = [
        Curve(f"d = {rank}", [*counts], [each["score_error"] for each in counts.values()])
        for rank, counts in errors.items()
    ]
    rank, counts = list(errors.items())[-1]
    by_level = [
        Curve(f"N = {count:,}", [e["ratio"] for e in each["ratios"]], [e["mean"] for e in each["ratios"]])
        for count, each in counts.items()
    ]
    return [
        Panel(over_n, "all training noise levels", "training images N", "score error", scales),
        Panel(by_level, f"d = {rank}, level by level", "noise level sigma / alpha", "score error", scales),
    ]


_SUBTITLE = "mean squared distance of the predicted noise to the exact one, 48 values, fresh samples"


def _agreement(rank: int, count: int, trained_bank: Drawn, exact_bank: Drawn) -> dict[str, Any]:
    """How near the trained model's images are to the exact ones of the same noise, and of other noises."""
    trained, exact = (each.open().images.flatten(1).double() / 127.5 - 1 for each in (trained_bank, exact_bank))
    same, other = (exceeds(cosine(trained, images), 0.95) for images in (exact, exact.roll(1, 0)))
    low, high = wilson_interval(int(same.sum()), len(same))
    return {
        "d": rank,
        "N": count,
        "n": len(exact),
        "relative_error": _relative(trained, exact),
        "relative_error_other_noise": _relative(trained, exact.roll(1, 0)),
        "rp_0.95": same.double().mean().item(),
        "rp_0.95_low": low,
        "rp_0.95_high": high,
        "rp_0.95_other_noise": other.double().mean().item(),
    }


def _relative(answer: Tensor, right: Tensor) -> float:
    return ((answer - right).norm(dim=1) / right.norm(dim=1)).median().item()


def _lines(errors: Mapping[int, Mapping[int, Any]], samples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for rank, counts in errors.items():
        values = [each["score_error"] for each in counts.values()]
        falls = ", ".join(f"{error:.3g} (N = {count:,})" for error, count in zip(values, counts, strict=True))
        yield f"d = {rank}: score error {falls}: {values[0] / values[-1]:.1f} times less"
    for row in samples:
        yield (
            f"d = {row['d']}, N = {row['N']:,}: drawn images differ from the exact ones by {row['relative_error']:.3f} "
            f"(median, relative; {row['relative_error_other_noise']:.2f} for another noise), RP at cosine 0.95 "
            f"{row['rp_0.95']:.3f} ({row['rp_0.95_low']:.3f}-{row['rp_0.95_high']:.3f}; another noise "
            f"{row['rp_0.95_other_noise']:.3f}), n = {row['n']:,}"
        )
