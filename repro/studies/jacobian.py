"""The rank of denoisers' Jacobians along the way from noise to image, and how alike two models' gradients are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from repro.analysis import gradient_similarity, spectrum
from repro.checkpoints.loading import load_model
from repro.denoisers import Denoiser, EmpiricalDenoiser, UnderKernel
from repro.kernels import EDM
from repro.noise import NoiseStream
from repro.plots import Curve, Panel, line_chart, rendered, save_figure
from repro.records import rebuild
from repro.samplers.base import Step
from repro.samplers.heun import Heun
from repro.studies.base import Scale
from repro.studies.jobs import Job
from repro.studies.measuring import MeasuringStudy, log_figure
from repro.studies.system_table import write_rows
from repro.studies.systems import run_of
from repro.studies.trio import trio, trio_jobs

__all__ = ["Jacobian"]


class _Size(NamedTuple):
    """How many noises and probes, rows of a Jacobian at a time, seconds a spectrum and a pair on one core."""

    noises: int
    probes: int
    chunk: int
    seconds: float


_SIZES = {"tiny": _Size(16, 16, 64, 12), "small": _Size(4, 16, 256, 1800), "paper": _Size(16, 64, 512, 36_000)}
_KERNEL = EDM(sigma_min=0.02, sigma_max=50.0)
_STEPS = 18
_OPTIMUM = "optimum"


class Jacobian(MeasuringStudy):
    """Numerical rank of the denoisers' Jacobians along Heun's 18 steps, and the likeness of predicted noises and of
    their gradients between systems.

    All systems are looked at through one kernel, at the same noise levels and from the same noises; the rank is the
    companion code's (99 per cent of the root of the energy). Gradients are products of the Jacobian with common
    numbered directions (appendix F), taken where the first system of a pair passes. The empirical optimum of the
    training images, whose Jacobian has no rank left once an image is chosen, stands beside them.
    """

    name: ClassVar[str] = "jacobian"
    figure: ClassVar[str] = "none; companion code, and appendix F"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """Trains three systems; a spectrum of each and of the optimum, and the gradients of every pair."""
        names, size = trio(scale), _SIZES[scale]
        jobs = trio_jobs(folder, scale)
        for name in [*names, _OPTIMUM]:
            needs = names[0] if name == _OPTIMUM else name
            jobs.append(self.measure_job(folder, scale, f"rank_{name}", [f"fit_{needs}"], size.seconds))
        for first, second in self._pairs(scale):
            needs = [f"fit_{name}" for name in (first, second) if name != _OPTIMUM]
            jobs.append(self.measure_job(folder, scale, f"pair_{first}_{second}", needs, size.seconds / 2))
        return jobs

    def _pairs(self, scale: Scale) -> list[tuple[str, str]]:
        return list(itertools.combinations([*trio(scale), _OPTIMUM], 2))

    def measure(self, folder: Path, scale: Scale, part: str) -> Mapping[str, Any]:
        """Ranks of one system, or cosines of one pair, at every step."""
        if part.startswith("rank_"):
            return {"levels": self._ranks(folder, scale, part.removeprefix("rank_"))}
        pairs = {f"pair_{first}_{second}": (first, second) for first, second in self._pairs(scale)}
        return {"levels": self._cosines(folder, scale, *pairs[part])}

    def _ranks(self, folder: Path, scale: Scale, name: str) -> list[dict[str, Any]]:
        denoiser, rows = self._denoiser(folder, scale, name), []
        for step in self._steps(denoiser, scale):
            found = spectrum(denoiser, step.x_t, step.t, chunk=_SIZES[scale].chunk)
            rows.append({"ratio": found.ratio, "ranks": found.rank.tolist(), "trace": found.trace.mean().item()})
        return rows

    def _cosines(self, folder: Path, scale: Scale, first: str, second: str) -> list[dict[str, Any]]:
        one, other, rows = self._denoiser(folder, scale, first), self._denoiser(folder, scale, second), []
        for step in self._steps(one, scale):
            probes = range(_SIZES[scale].probes)
            gradients = gradient_similarity(one, other, step.x_t, step.t, probes).mean(1)
            with torch.no_grad():
                noises = [each.eps(step.x_t, step.t).flatten(1) for each in (one, other)]
            cosines = torch.cosine_similarity(*noises, dim=1)
            others = torch.cosine_similarity(noises[0], noises[1].roll(1, 0), dim=1)
            found = {"gradient": gradients, "eps": cosines, "eps_other_noise": others}
            rows.append({"ratio": step.t.item()} | {key: values.tolist() for key, values in found.items()})
        return rows

    def _denoiser(self, folder: Path, scale: Scale, name: str) -> Denoiser:
        model = load_model(run_of(folder, trio(scale)[0] if name == _OPTIMUM else name))
        if name == _OPTIMUM:
            return EmpiricalDenoiser(rebuild(model.data_record), _KERNEL)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return UnderKernel(model.denoiser.to(device), _KERNEL)

    def _steps(self, denoiser: Denoiser, scale: Scale) -> list[Step]:
        return list(Heun(steps=_STEPS).trajectory(denoiser, NoiseStream(range(_SIZES[scale].noises))))

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``ranks.csv``, ``gradients.csv`` and the figure."""
        names, pairs = [*trio(scale), _OPTIMUM], self._pairs(scale)
        ranks = {name: self.measured(folder, f"rank_{name}")["levels"] for name in names}
        cosines = {pair: self.measured(folder, f"pair_{pair[0]}_{pair[1]}")["levels"] for pair in pairs}
        write_rows(folder / "ranks.csv", [row for name in names for row in _rank_rows(name, ranks[name])])
        write_rows(folder / "gradients.csv", [row for pair in pairs for row in _pair_rows(pair, cosines[pair])])
        figure = line_chart(
            [
                Panel([_rank_curve(name, ranks[name]) for name in names], "rank of the Jacobian", _ACROSS, "rank"),
                *(
                    Panel([_cosine_curve(pair, cosines[pair], key) for pair in pairs], title, _ACROSS, "cosine")
                    for key, title in (("eps", "predicted noises"), ("gradient", "gradients along common directions"))
                ),
            ],
            "Jacobians of denoisers along the way from noise to image",
            f"{_SIZES[scale].noises} noises; bands: smallest to largest; read from right to left",
        )
        save_figure(figure, folder / "jacobian.png")
        values = {f"rank/{name}": min(_mean(row["ranks"]) for row in ranks[name]) for name in names}
        values |= {f"gradient/{a}_{b}": _overall(cosines[a, b], "gradient") for a, b in pairs}
        log_figure(folder / "results", self.name, rendered(figure), values)
        lines = [_rank_text(name, ranks[name]) for name in names]
        lines += [_pair_text(pair, cosines[pair]) for pair in pairs]
        lines.append(f"means over {_STEPS} noise levels and {_SIZES[scale].noises} noises")
        return "\n".join([*lines, "", f"picture: {folder / 'jacobian.png'}", f"tables: {folder}/*.csv"])


_ACROSS = "noise level sigma / alpha"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _overall(levels: list[dict[str, Any]], key: str) -> float:
    return _mean([_mean(row[key]) for row in levels])


def _rank_rows(name: str, levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "system": name,
            "ratio": row["ratio"],
            "rank": _mean(row["ranks"]),
            "lowest": min(row["ranks"]),
            "highest": max(row["ranks"]),
            "trace": row["trace"],
            "n": len(row["ranks"]),
        }
        for row in levels
    ]


def _pair_rows(pair: tuple[str, str], levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "first": pair[0],
            "second": pair[1],
            "ratio": row["ratio"],
            "eps_cosine": _mean(row["eps"]),
            "eps_cosine_other_noise": _mean(row["eps_other_noise"]),
            "gradient_cosine": _mean(row["gradient"]),
            "n": len(row["eps"]),
        }
        for row in levels
    ]


def _rank_curve(name: str, levels: list[dict[str, Any]]) -> Curve:
    ranks = [row["ranks"] for row in levels]
    places = [row["ratio"] for row in levels]
    return Curve(name, places, [_mean(each) for each in ranks], list(map(min, ranks)), list(map(max, ranks)))


def _cosine_curve(pair: tuple[str, str], levels: list[dict[str, Any]], key: str) -> Curve:
    return Curve(" - ".join(pair), [row["ratio"] for row in levels], [_mean(row[key]) for row in levels])


def _rank_text(name: str, levels: list[dict[str, Any]]) -> str:
    means = [(_mean(row["ranks"]), row["ratio"]) for row in levels]
    lowest = min(means)
    return (
        f"{name}: rank {means[0][0]:.1f} at noise level {means[0][1]:.3g}, lowest {lowest[0]:.1f} at {lowest[1]:.3g}, "
        f"{means[-1][0]:.1f} at {means[-1][1]:.3g}"
    )


def _pair_text(pair: tuple[str, str], levels: list[dict[str, Any]]) -> str:
    lowest = min((_mean(row["gradient"]), row["ratio"]) for row in levels)
    return (
        f"{pair[0]} - {pair[1]}: mean cosine of predicted noises {_overall(levels, 'eps'):.3f} "
        f"({_overall(levels, 'eps_other_noise'):.3f} from other noises), of gradients "
        f"{_overall(levels, 'gradient'):.3f}, lowest {lowest[0]:.3f} at noise level {lowest[1]:.3g}"
    )
