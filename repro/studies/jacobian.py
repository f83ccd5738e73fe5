"""The rank of denoisers' Jacobians along the way from noise to image, and how alike two models' gradients are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch

from repro.analysis import gradient_similarity, spectrum
from repro.denoisers import Denoiser, EmpiricalDenoiser, UnderKernel
from repro.kernels import EDM
from repro.noise import NoiseStream
from repro.plots import Curve, Panel, line_chart
from repro.records import rebuild
from repro.samplers import Heun
from repro.studies import Measured, Plan, Report, Study, Trained, trio

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


class Jacobian(Study):
    """Numerical rank of the denoisers' Jacobians along Heun's 18 steps, and the likeness of predicted noises and of
    their gradients between systems.

    All systems are looked at through one kernel, at the same noise levels and from the same noises; the rank is the
    companion code's (99 per cent of the root of the energy). Gradients are products of the Jacobian with common
    numbered directions (appendix F), taken where the first system of a pair passes. The empirical optimum of the
    training images, whose Jacobian has no rank left once an image is chosen, stands beside them.
    """

    name: ClassVar[str] = "jacobian"
    figure: ClassVar[str] = "none; companion code, and appendix F"

    def plan(self, plan: Plan) -> tuple[dict[str, Measured], dict[tuple[str, str], Measured]]:
        """Trains three systems; a spectrum of each and of the optimum, and the gradients of every pair."""
        size, runs = _SIZES[plan.scale.name], trio(plan)
        systems = {name: (run, False) for name, run in runs.items()}
        systems[_OPTIMUM] = (next(iter(runs.values())), True)
        ranks = {
            name: plan.measure(f"rank_{name}", _ranks, system, size, seconds=size.seconds)
            for name, system in systems.items()
        }
        cosines = {
            pair: plan.measure("_".join(("pair", *pair)), _cosines, *both, size, seconds=size.seconds / 2)
            for pair, both in zip(
                itertools.combinations(systems, 2), itertools.combinations(systems.values(), 2), strict=True
            )
        }
        return ranks, cosines

    def report(self, report: Report, parts: tuple[dict[str, Measured], dict[tuple[str, str], Measured]]) -> None:
        """Writes ``ranks.csv``, ``gradients.csv`` and the figure."""
        ranks = {name: each.read()["levels"] for name, each in parts[0].items()}
        cosines = {pair: each.read()["levels"] for pair, each in parts[1].items()}
        report.table("ranks", [row for name, levels in ranks.items() for row in _rank_rows(name, levels)])
        report.table("gradients", [row for pair, levels in cosines.items() for row in _pair_rows(pair, levels)])
        noises = _SIZES[report.scale.name].noises
        curves = [_rank_curve(name, levels) for name, levels in ranks.items()]
        panels = [Panel(curves, "rank of the Jacobian", _ACROSS, "rank")]
        for key, title in (("eps", "predicted noises"), ("gradient", "gradients along common directions")):
            curves = [_cosine_curve(pair, levels, key) for pair, levels in cosines.items()]
            panels.append(Panel(curves, title, _ACROSS, "cosine"))
        title = "Jacobians of denoisers along the way from noise to image"
        figure = line_chart(panels, title, f"{noises} noises; bands: smallest to largest; read from right to left")
        values = {f"rank/{name}": min(_mean(row["ranks"]) for row in levels) for name, levels in ranks.items()}
        values |= {f"gradient/{a}_{b}": _overall(levels, "gradient") for (a, b), levels in cosines.items()}
        report.figure([figure], values=values)
        report.text(
            *(_rank_text(name, levels) for name, levels in ranks.items()),
            *(_pair_text(pair, levels) for pair, levels in cosines.items()),
            f"means over {_STEPS} noise levels and {noises} noises",
        )


_System = tuple[Trained, bool]
"""A training, and whether the empirical optimum of its images is meant instead of its model."""


def _denoiser(system: _System) -> Denoiser:
    model = system[0].load()
    if system[1]:
        return EmpiricalDenoiser(rebuild(model.data_record), _KERNEL)
    return UnderKernel(model.denoiser.to("cuda" if torch.cuda.is_available() else "cpu"), _KERNEL)


def _steps(denoiser: Denoiser, size: _Size) -> list[Any]:
    return list(Heun(steps=_STEPS).trajectory(denoiser, NoiseStream(range(size.noises))))


def _ranks(system: _System, size: _Size) -> Mapping[str, Any]:
    """Ranks of one system at every step."""
    denoiser, rows = _denoiser(system), []
    for step in _steps(denoiser, size):
        measured = spectrum(denoiser, step.x_t, step.t, chunk=size.chunk)
        rows.append({"ratio": measured.ratio, "ranks": measured.rank.tolist(), "trace": measured.trace.mean().item()})
    return {"levels": rows}


def _cosines(first: _System, second: _System, size: _Size) -> Mapping[str, Any]:
    """Cosines of one pair at every step of the first."""
    one, other, rows = _denoiser(first), _denoiser(second), []
    for step in _steps(one, size):
        gradients = gradient_similarity(one, other, step.x_t, step.t, range(size.probes)).mean(1)
        with torch.no_grad():
            noises = [each.eps(step.x_t, step.t).flatten(1) for each in (one, other)]
        cosines = torch.cosine_similarity(*noises, dim=1)
        others = torch.cosine_similarity(noises[0], noises[1].roll(1, 0), dim=1)
        values = {"gradient": gradients, "eps": cosines, "eps_other_noise": others}
        rows.append({"ratio": step.t.item()} | {key: each.tolist() for key, each in values.items()})
    return {"levels": rows}


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
