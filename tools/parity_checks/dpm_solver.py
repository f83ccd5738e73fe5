"""DPM-Solver against recorded runs of LuChengTHU/dpm-solver on an analytic model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from parity_checks.fixture import Check, Fixture, Watched
from repro.denoisers import Denoiser
from repro.kernels import VP, Cosine, DiscreteVP, Kernel
from repro.parameterizations import Eps
from repro.samplers.dpm_solver import DPMSolver

__all__ = ["MixtureDenoiser", "dpm_kernel", "dpm_sampler", "dpm_solver"]

_NOMINAL_STEPS = 1000


class MixtureDenoiser(Denoiser):
    """Posterior mean of a mixture of isotropic Gaussians, the analytic model of the DPM-Solver fixture.

    Args:
        kernel: The perturbation kernel.
        weights: Weights of the components, (K,).
        means: Their means, (K, d).
        variances: Their variances, (K,).
    """

    def __init__(self, kernel: Kernel, weights: Tensor, means: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.kernel, self.image_shape = kernel, (means.shape[1], 1, 1)
        self.weights, self.means, self.variances = weights.double(), means.double(), variances.double()

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t = t.reshape(-1, 1)
        y, ratio = x_t.flatten(1) / self.kernel.alpha(t), self.kernel.ratio(t)
        total = self.variances + ratio**2
        squares = (y[:, None] - self.means).square().sum(2)
        share = torch.softmax(self.weights.log() - self.means.shape[1] / 2 * total.log() - squares / (2 * total), 1)
        pulled = self.means + (self.variances / total)[..., None] * (y[:, None] - self.means)
        return (share[:, :, None] * pulled).sum(1).view(x_t.shape)


class CommonSteps(DPMSolver):
    """The adaptive steps of the reference: the worst image's for the whole batch, and of unlimited growth."""

    growth = math.inf

    def error_of(self, low: Tensor, high: Tensor, before: Tensor) -> Tensor:
        error = super().error_of(low, high, before)
        return error.max().expand_as(error)


def dpm_solver(fixture: Fixture) -> Iterator[Check]:
    """NoiseScheduleVP and DPM_Solver of LuChengTHU/dpm-solver."""
    settings = fixture.meta["constructor_kwargs"]
    for schedule in fixture.meta["schedules"]:
        yield from _schedule_tables(fixture, schedule, dpm_kernel(schedule, settings))
    for i, run in enumerate(fixture.meta["runs"]):
        kernel = dpm_kernel(run["schedule"], settings)
        mixture = MixtureDenoiser(kernel, *(fixture.io[f"mix_{name}"] for name in ("weights", "means", "vars")))
        denoiser = Watched(mixture)
        sampler = dpm_sampler(run)
        steps = list(sampler.trajectory(denoiser, fixture.io["x_T"][:, :, None, None]))
        yield fixture.compare(f"run{i:02d}_x0", steps[-1].x_s[:, :, 0, 0])
        calls = fixture.io[f"run{i:02d}_t_calls"]
        repeats = 0
        if run["method"] == "adaptive":
            needed = _without_repeats(calls, run["order"])
            calls, repeats = needed, len(calls) - len(needed)
        yield fixture.compare(f"run{i:02d}_nfe", torch.tensor([sampler.evaluations + repeats]))
        if run["method"] != "adaptive":
            yield fixture.compare(f"run{i:02d}_timesteps", sampler.times(kernel))
            if f"run{i:02d}_orders" in fixture.io:
                yield fixture.compare(f"run{i:02d}_orders", torch.tensor(sampler.orders()))
        ours = torch.tensor(denoiser.times, dtype=torch.float64)
        error = (ours - calls).abs().max().item() if ours.shape == calls.shape else math.inf
        yield Check(f"run{i:02d}_t_calls", error, 1e-6, error / 1e-6)


def dpm_kernel(schedule: str, settings: dict[str, Any]) -> Kernel:
    """Our kernel for a schedule of the reference: ``linear``, ``cosine``, ``ddpm1000``, ``cosine1000``, ..."""
    name, steps = re.fullmatch(r"([a-z_]+?)_?(\d*)", schedule).groups()
    if not steps:
        return Cosine() if name == "cosine" else VP(settings.get("beta_0", 0.1), settings.get("beta_1", 20.0))
    return DiscreteVP("cosine" if name == "cosine" else "linear", steps=int(steps))


def dpm_sampler(run: dict[str, Any]) -> DPMSolver:
    """Our sampler for the arguments of the reference's ``sample``; it does not count the last evaluation as a step."""
    return CommonSteps(
        steps=run["steps"] + run["denoise_to_zero"],
        order=run["order"],
        method=run["method"],
        algorithm=run["algorithm_type"],
        solver_type=run["solver_type"],
        spacing={"logSNR": "log_snr"}.get(run["skip_type"], run["skip_type"]),
        t_end=run["t_end"],
        final_denoise=run["denoise_to_zero"],
        lower_order_final=run["lower_order_final"],
        rtol=run.get("rtol", 0.05),
        atol=run.get("atol", 0.0078),
    )


def _schedule_tables(fixture: Fixture, schedule: str, kernel: Kernel) -> Iterator[Check]:
    t = fixture.io["t_grid"]
    log_snr = kernel.log_snr(t)
    tables = {
        "log_alpha": kernel.log_alpha(t),
        "sigma": kernel.sigma(t),
        "lambda": log_snr,
        "inverse_lambda": kernel.time_of_log_snr(log_snr),
        "total_N": torch.tensor([getattr(kernel, "steps", _NOMINAL_STEPS)]),
    }
    if isinstance(kernel, DiscreteVP):
        shown = Eps(condition_scale=1000, condition_shift=-1000 / kernel.steps)
        tables["model_input_time"] = shown.noise_level(t, -log_snr)
    for name, table in tables.items():
        if f"{schedule}_{name}" in fixture.io:
            yield fixture.compare(f"{schedule}_{name}", table)


def _without_repeats(calls: Tensor, order: int) -> Tensor:
    """The reference's calls less those at the start of a rejected step, which it makes again."""
    trials = calls.view(-1, order)
    again = torch.cat([torch.tensor([False]), trials[1:, 0] == trials[:-1, 0]])
    return torch.cat([trial[1:] if repeat else trial for trial, repeat in zip(trials, again, strict=True)])
