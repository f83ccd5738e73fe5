"""Figure 5: how the predicted noise comes to that of the distribution as the training set grows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from repro.analysis import score_error_by_ratio
from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.data.mixture import LowRankMixture
from repro.denoisers import LowRankMixtureDenoiser
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.similarity import cosine, exceeds
from repro.noise import draw_noise
from repro.plots import Curve, Panel, line_chart, rendered, save_figure
from repro.records import rebuild
from repro.studies.base import Scale
from repro.studies.jobs import Job
from repro.studies.measuring import MeasuringStudy, log_figure
from repro.studies.system_table import write_rows
from repro.studies.systems import bank_of, configs_folder, draw_job, fit_job, run_of

__all__ = ["Mog"]


class _Size(NamedTuple):
    """The config that is trained, dimensions d, numbers of images N, seeds to draw, seconds a training, options."""

    config: str
    ranks: tuple[int, ...]
    counts: tuple[int, ...]
    seeds: str
    seconds: float
    options: tuple[str, ...] = ()


_PIXELS = 48
_ALL = 99_000
_NARROW = ("--model.network.width", "192", "--trainer.max_steps", "2500")
_SIZES = {
    "tiny": _Size("mlp", (3, 5, 7), (32, 256, 2048, _ALL), "0-999", 60, _NARROW),
    "small": _Size("mlp", (3, 4, 5, 6, 7, 8), (16, 64, 256, 1024, 4096, 16_384, _ALL), "0-1999", 95),
    "paper": _Size("edm", (3, 4, 5, 6, 7, 8), tuple(2**k for k in range(4, 17)), "0-9999", 3000),
}
_LEVELS = 16


class Mog(MeasuringStudy):
    """Denoisers trained on N samples of a mixture of low-rank Gaussians, against its exact denoiser.

    The score error is the mean squared distance of the predicted noises over fresh samples and over the noise levels
    of the training, for planes of several dimensions d. At the largest N, what the trained model draws is compared,
    noise by noise, with what the exact denoiser draws.
    """

    name: ClassVar[str] = "mog"
    figure: ClassVar[str] = "5"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """For each d and N: train and measure; for each d: draw at the largest N, and from the exact denoiser."""
        size, jobs, configs = _SIZES[scale], [], configs_folder() / "mixture"
        for rank in size.ranks:
            for count in size.counts:
                name, std = _name(rank, count), math.sqrt(rank / _PIXELS)
                options = ("--data.rank", str(rank), "--data.subset", str(count), *size.options)
                options += ("--model.parameterization.sigma_data", f"{std:.3f}")
                jobs.append(fit_job(folder, name, [configs / f"{size.config}.yaml"], options, seconds=size.seconds))
                jobs.append(self.measure_job(folder, scale, name, [f"fit_{name}"], seconds=2))
            jobs.append(draw_job(folder, _name(rank, size.counts[-1]), size.seeds))
            exact = ("--model.denoiser.rank", str(rank), "--task", "unconditional")
            jobs.append(draw_job(folder, f"exact_d{rank}", size.seeds, exact, config=configs / "exact.yaml"))
        return jobs

    def measure(self, folder: Path, scale: Scale, part: str) -> Mapping[str, Any]:
        """Score error of one trained model on the samples that no training saw, level by level."""
        model = load_model(run_of(folder, part))
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

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``mog.csv`` with the score error for each d and N, ``samples.csv``, and the figure."""
        size, rows = _SIZES[scale], []
        for rank in size.ranks:
            for count in size.counts:
                found = self.measured(folder, _name(rank, count))
                rows.append({"d": rank, "N": count, "score_error": found["score_error"], "n": found["samples"]})
        samples = [_agreement(folder, rank, size.counts[-1]) for rank in size.ranks]
        write_rows(folder / "mog.csv", rows)
        write_rows(folder / "samples.csv", samples)
        figure = line_chart(list(self._panels(folder, size, rows)), "Score error on the mixture", _SUBTITLE)
        save_figure(figure, folder / "mog.png")
        values = {f"score_error/d{row['d']}_n{row['N']}": row["score_error"] for row in rows}
        log_figure(folder / "results", self.name, rendered(figure), values)
        return "\n\n".join([_text(size, rows, samples), f"picture: {folder / 'mog.png'}\ntables: {folder}/*.csv"])

    def _panels(self, folder: Path, size: _Size, rows: list[dict[str, Any]]) -> Iterator[Panel]:
        curves = []
        for rank in size.ranks:
            own = [row for row in rows if row["d"] == rank]
            curves.append(Curve(f"d = {rank}", [row["N"] for row in own], [row["score_error"] for row in own]))
        yield Panel(curves, "all training noise levels", "training images N", "score error", ("log", "log"))
        curves = []
        for count in size.counts:
            levels = self.measured(folder, _name(size.ranks[-1], count))["ratios"]
            curves.append(Curve(f"N = {count:,}", [e["ratio"] for e in levels], [e["mean"] for e in levels]))
        title = f"d = {size.ranks[-1]}, level by level"
        yield Panel(curves, title, "noise level sigma / alpha", "score error", ("log", "log"))


_SUBTITLE = "mean squared distance of the predicted noise to the exact one, 48 values, fresh samples"


def _name(rank: int, count: int) -> str:
    return f"d{rank}_n{count}"


def _agreement(folder: Path, rank: int, count: int) -> dict[str, Any]:
    """How near the trained model's images are to the exact ones of the same noise, and of other noises."""
    trained, exact = (
        Bank.open(bank_of(folder, name)).images.flatten(1).double() / 127.5 - 1
        for name in (_name(rank, count), f"exact_d{rank}")
    )
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


def _relative(given: Tensor, right: Tensor) -> float:
    return ((given - right).norm(dim=1) / right.norm(dim=1)).median().item()


def _text(size: _Size, rows: list[dict[str, Any]], samples: list[dict[str, Any]]) -> str:
    lines = []
    for rank in size.ranks:
        errors = [row["score_error"] for row in rows if row["d"] == rank]
        falls = ", ".join(f"{error:.3g} (N = {count:,})" for error, count in zip(errors, size.counts, strict=True))
        lines.append(f"d = {rank}: score error {falls}: {errors[0] / errors[-1]:.1f} times less")
    for row in samples:
        lines.append(
            f"d = {row['d']}, N = {row['N']:,}: drawn images differ from the exact ones by {row['relative_error']:.3f} "
            f"(median, relative; {row['relative_error_other_noise']:.2f} for another noise), RP at cosine 0.95 "
            f"{row['rp_0.95']:.3f} ({row['rp_0.95_low']:.3f}-{row['rp_0.95_high']:.3f}; another noise "
            f"{row['rp_0.95_other_noise']:.3f}), n = {row['n']:,}"
        )
    return "\n".join(lines)
