"""The U-Net of openai/consistency_models with both scalings, its samplers, losses and schedules."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from parity_checks.fixture import Check, Fixture, Recorded
from repro.denoisers import Denoiser, NetworkDenoiser
from repro.kernels import EDM
from repro.parameterizations import ConsistencyPreconditioning, EDMPreconditioning
from repro.released.consistency import layout as layout
from repro.samplers.base import Run
from repro.samplers.consistency import Consistency
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.steps import FixedSteps, time_grid
from repro.training.consistency import ConsistencyDistillation, ConsistencyModule, ConsistencyTraining
from repro.training.consistency_losses import adaptive_decay, distance, progressive_levels, weight
from repro.training.halving import two_step_target

__all__ = [
    "CubicMidpoint",
    "consistency_losses",
    "consistency_network",
    "consistency_sampling",
    "consistency_schedules",
]


_CONDITION = 250.0


class Clamped(Denoiser):
    """A denoiser whose answers are cut to [-1, 1]."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.kernel = denoiser, denoiser.kernel
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.denoiser.denoise(x_t, t, labels).clamp(-1, 1)


class CubicMidpoint(FixedSteps):
    """The reference's ``dpm`` sampler: each step takes the slope at the middle of the cube roots of its levels."""

    def __init__(self, steps: int, rho: float = 7.0) -> None:
        super().__init__(steps, "edm", None, True, rho, None)

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        end = torch.zeros_like(t) if s is None else s
        x_0, middle = run.denoise(x_t, t), ((t ** (1 / 3) + end ** (1 / 3)) / 2) ** 3
        x_middle = x_t + (middle - t) * (x_t - x_0) / t
        return x_0, x_t + (end - t) * (x_middle - run.denoise(x_middle, middle)) / middle


def _denoisers(fixture: Fixture, dtype: torch.dtype) -> dict[str, NetworkDenoiser]:
    """The fixture's network under EDM's scalings and under those of a consistency function."""
    given = fixture.meta["diffusion_kwargs"]
    network, kernel = fixture.network(layout, fixture.settings, dtype), EDM(given["sigma_min"], given["sigma_max"])
    plain = EDMPreconditioning(given["sigma_data"], _CONDITION)
    boundary = ConsistencyPreconditioning(given["sigma_data"], _CONDITION, given["sigma_min"])
    return {"edm": NetworkDenoiser(network, kernel, plain), "cm": NetworkDenoiser(network, kernel, boundary)}


def consistency_network(fixture: Fixture) -> Iterator[Check]:
    """The network's output, and its scalings and denoised images as diffusion model and as consistency model."""
    x, sigma, labels = fixture.io["x"], fixture.io["sigma"].double(), fixture.classes("y")
    denoisers = _denoisers(fixture, torch.float32)
    yield fixture.compare("raw_out", denoisers["edm"].network(x, fixture.io["timesteps"], labels))
    for name, denoiser in denoisers.items():
        skip, out = denoiser.parameterization.skip_and_out(sigma)
        given = {
            "c_skip": skip,
            "c_out": out,
            "c_in": denoiser.parameterization.input_scale(torch.ones_like(sigma), sigma),
            "F": denoiser(x.double(), sigma, labels),
            "denoised": denoiser.denoise(x.double(), sigma, labels),
        }
        yield from fixture.compare_all({f"{key}_{name}": tensor for key, tensor in given.items()})


def consistency_sampling(fixture: Fixture) -> Iterator[Check]:
    """``karras_sample`` with every sampler; the final images are clamped, and without ``_noclip`` each answer too."""
    denoisers = _denoisers(fixture, torch.float64)
    for name in sorted(fixture.outputs):
        if name.startswith(("onestep", "multistep")):
            yield fixture.compare(name, _consistency_images(fixture, name, denoisers["cm"]))
        elif found := re.fullmatch(r"(heun|euler|progdist|dpm2|sigmas)_(\d+)(_noclip)?", name):
            yield fixture.compare(name, _diffusion_output(fixture, *found.groups(), denoisers["edm"]))


def _consistency_images(fixture: Fixture, name: str, function: NetworkDenoiser) -> Tensor:
    """One step, or several at the places of the level grid that the output's description lists."""
    stated = re.search(r"ts=\[([0-9, ]+)\] steps=(\d+)", fixture.meta["tensors"][name]["meaning"])
    kernel, clip, labels = function.kernel, not name.endswith("_noclip"), fixture.classes("y")
    if not stated:
        return Consistency(clip=clip).sample(function, fixture.io["latents"], labels)
    places, grid = [int(place) for place in stated[1].split(",")], int(stated[2])
    levels = time_grid(kernel, "edm", grid - 1, kernel.t_max, kernel.t_min, fixture.meta["diffusion_kwargs"]["rho"])
    ratios = [level for level in levels[places].tolist() if level > kernel.t_min]
    noises = [fixture.io[key] for key in sorted(fixture.io) if re.fullmatch(r"noise_\d+", key)]
    walk = Consistency(ratios=ratios, clip=clip).trajectory(function, Recorded(fixture.io["latents"], *noises), labels)
    return list(itertools.islice(walk, len(places) - 1))[-1].x_s.clamp(-1, 1)


def _diffusion_output(
    fixture: Fixture, kind: str, number: str, unclamped: str | None, plain: NetworkDenoiser
) -> Tensor:
    """The images of one of the diffusion samplers, or its noise levels."""
    steps, rho = int(number), fixture.meta["diffusion_kwargs"]["rho"]
    if kind == "sigmas":
        return torch.cat([Euler(steps=steps, rho=rho).times(plain.kernel), torch.zeros(1)])
    sampler = {
        "heun": lambda: Heun(steps=steps, rho=rho),
        "euler": lambda: Euler(steps=steps, rho=rho),
        "progdist": lambda: Euler(steps=steps, rho=rho, final_denoise=False),
        "dpm2": lambda: CubicMidpoint(steps, rho),
    }[kind]()
    denoiser = plain if unclamped else Clamped(plain)
    return sampler.sample(denoiser, fixture.io["latents"], fixture.classes("y")).clamp(-1, 1)


def consistency_losses(fixture: Fixture) -> Iterator[Check]:
    """Losses of consistency training, consistency and progressive distillation, and of the diffusion model."""
    online = _denoisers(fixture, torch.float64)
    teacher, target = (_reweighted(fixture, online, share) for share in (1.0, 1 - _online_share(fixture)))
    student, of_target = online["cm"], target["cm"]
    for name in sorted(fixture.outputs):
        found = re.fullmatch(r"(ct|cd|pd)_(l1|l2)_(\w+)", name)
        if name.startswith("edm_"):
            yield fixture.compare(name, _diffusion_loss(fixture, name, online["edm"]))
        elif found and found[1] == "pd":
            loss = _halving_loss(fixture, found[2], found[3], online["edm"], teacher["edm"])
            yield fixture.compare(name, loss)
        elif found:
            module = _module(fixture, *found.groups(), student, teacher["edm"])
            t, s = module.pairs(fixture.io["indices"])
            x_0, eps = fixture.io["x0"].double(), fixture.io["noise"].double()
            yield fixture.compare(name, module.loss_at(student, of_target, x_0, eps, t, s, fixture.classes("y")))


def _online_share(fixture: Fixture) -> float:
    """Part of the online network in the target network, as the notes tell it."""
    stated = re.search(r"([0-9.]+)\s*\*\s*online", " ".join(fixture.meta["notes"]))
    return float(stated[1]) if stated else 0.25


def _reweighted(fixture: Fixture, denoisers: dict[str, NetworkDenoiser], share: float) -> dict[str, NetworkDenoiser]:
    """The denoisers with weights that are the teacher's to this part."""
    network = fixture.network(layout, fixture.settings, torch.float64)
    weights = layout.state_dict(fixture.weights("weights_teacher"), network)
    mixed = {key: torch.lerp(own, weights[key].to(own), share) for key, own in network.state_dict().items()}
    network.load_state_dict(mixed)
    return {key: NetworkDenoiser(network, each.kernel, each.parameterization) for key, each in denoisers.items()}


def _module(
    fixture: Fixture, kind: str, metric: str, weighting: str, student: NetworkDenoiser, teacher: NetworkDenoiser
) -> ConsistencyModule:
    """Our module in the settings of an output."""
    options = {
        "levels": fixture.meta["num_scales"],
        "last_levels": None,
        "target_decay": 0.0,
        "distance": metric,
        "weighting": _weighting(weighting),
        "rho": fixture.meta["diffusion_kwargs"]["rho"],
        "sigma_data": student.parameterization.sigma_data,
    }
    if kind == "ct":
        return ConsistencyTraining(student.network, student.kernel, adaptive_decay=False, **options)
    return ConsistencyDistillation(teacher, student.network, student.kernel, **options)


def _weighting(name: str) -> str:
    return {"snrp1": "snr_plus_one"}.get(name, name)


def _halving_loss(
    fixture: Fixture, metric: str, weighting: str, student: NetworkDenoiser, teacher: NetworkDenoiser
) -> Tensor:
    """Progressive distillation of the teacher's two Euler steps; the input's description states the student's steps."""
    given = fixture.meta["diffusion_kwargs"]
    steps = int(re.search(r"num_scales\s*=\s*(\d+)", fixture.meta["tensors"]["indices_pd"]["meaning"])[1])
    kernel = student.kernel
    times = time_grid(kernel, "edm", 2 * steps, kernel.t_max, kernel.t_min, given["rho"])
    places, labels = 2 * fixture.io["indices_pd"], fixture.classes("y")
    x_0, eps = fixture.io["x0"].double(), fixture.io["noise"].double()
    t, middle, s = times[places], times[places + 1], times[places + 2]
    x_t = x_0 + t[:, None, None, None] * eps
    target = two_step_target(teacher, x_t, t, middle, teacher.scales(x_t, s), labels)
    apart = distance(student.denoise(x_t, t, labels), target, metric)
    return apart * weight(t, _weighting(weighting), given["sigma_data"])


def _diffusion_loss(fixture: Fixture, name: str, denoiser: NetworkDenoiser) -> Tensor:
    """EDM's loss on the denoised images; ``edm_xs_mse`` has no weight."""
    sigma, x_0 = fixture.io["sigma_edm"].double(), fixture.io["x0"].double()
    x_t = x_0 + sigma[:, None, None, None] * fixture.io["noise"]
    apart = distance(denoiser.denoise(x_t, sigma, fixture.classes("y")), x_0)
    weighting = name.removeprefix("edm_mse_") if name.startswith("edm_mse_") else "uniform"
    return apart * weight(sigma, _weighting(weighting), denoiser.parameterization.sigma_data)


def consistency_schedules(fixture: Fixture) -> Iterator[Check]:
    """Numbers of noise levels, decays of the target network, and the levels themselves."""
    for name, given in fixture.settings.items():
        steps = fixture.io[f"{name}_step"].tolist()
        levels = [_levels(step, given) for step in steps]
        decays = [_decay(number, given) for number in levels]
        yield fixture.compare(f"{name}_N", torch.tensor(levels))
        yield fixture.compare(f"{name}_mu", torch.tensor(decays, dtype=torch.float64))
    for name in sorted(fixture.outputs):
        if found := re.fullmatch(r"t_grid_N(\d+)", name):
            low, high, rho = _range(fixture.meta["tensors"][name]["meaning"])
            yield fixture.compare(name, time_grid(EDM(low, high), "edm", int(found[1]) - 1, high, low, rho).flip(0))


def _levels(step: int, given: dict[str, Any]) -> int:
    first, mode = given["start_scales"], given["scale_mode"]
    if mode == "fixed":
        return first
    if mode == "progressive":
        return progressive_levels(step, first, given["end_scales"], given["total_steps"])
    return _halved(step, first, given["distill_steps_per_iter"])


def _halved(step: int, first: int, stage: int) -> int:
    """The reference's progressive distillation: halved each stage; the last two, of 2 and 1, take twice as long."""
    levels = max(first // 2 ** (step // stage), 2)
    late = int(max(step - stage * (math.log2(first) - 1), 0) // (2 * stage))
    return levels if levels > 2 else max(2 // 2**late, 1)


def _decay(levels: int, given: dict[str, Any]) -> float:
    if given["scale_mode"] == "progdist":
        return 1.0
    if given["target_ema_mode"] == "adaptive":
        return adaptive_decay(given["start_ema"], given["start_scales"], levels)
    return given["start_ema"]


def _range(meaning: str) -> tuple[float, float, float]:
    """Ends and power of the grid that a description states."""
    ends = re.search(r"([0-9.]+) \.\. ([0-9.]+), rho ([0-9.]+)", meaning)
    return tuple(float(number) for number in ends.groups()) if ends else (0.002, 80.0, 7.0)
