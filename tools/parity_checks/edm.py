"""Networks of NVlabs/edm in their four wrappers, its blocks, its losses, and its samplers with every option."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from parity_checks.fixture import Check, Fixture, Recorded, Watched
from repro.denoisers import Denoiser, NetworkDenoiser, UnderKernel
from repro.kernels import EDM, VP, Kernel
from repro.parameterizations import EDMPreconditioning, Eps
from repro.released.edm import layout as edm_layout
from repro.samplers.base import Sampler
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.steps import time_grid
from repro.samplers.stochastic import EDMStochastic

__all__ = [
    "EDMNetwork",
    "ScheduleKernel",
    "edm_block",
    "edm_denoiser",
    "edm_loss",
    "edm_network",
    "edm_run",
    "edm_sampler",
    "iddpm_levels",
]


class RoundingDenoiser(Denoiser):
    """iDDPM's wrapper in EDM: the network is told the number of the nearest of M noise levels.

    Args:
        network: Its output's first channels are the predicted noise.
        levels: The M + 1 noise levels, falling, the last 0.
    """

    def __init__(self, network: nn.Module, levels: Tensor) -> None:
        super().__init__()
        self.network, self.kernel = network, EDM(levels[-2].item(), levels[0].item())
        self.image_shape, self.num_classes = network.image_shape, network.num_classes
        self.register_buffer("levels", levels, persistent=False)

    def round(self, sigma: Tensor) -> Tensor:
        return self.levels[self._nearest(sigma)]

    def _nearest(self, sigma: Tensor) -> Tensor:
        return (sigma.reshape(-1, 1) - self.levels).abs().argmin(1).view(sigma.shape)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        step = (len(self.levels) - 2 - self._nearest(t)).expand(len(x_t))
        sigma = self.scales(x_t, t)[1]
        shown = x_t * (sigma**2 + 1).rsqrt()
        noise = self.network(shown.to(dtype), step.to(dtype), labels)[:, : self.image_shape[0]]
        return x_t - sigma * noise.to(x_t)


class Negative(nn.Module):
    """A network whose output has the other sign: EDM's VE wrapper adds what others subtract."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.image_shape, self.num_classes = network, network.image_shape, network.num_classes

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, *more: Tensor) -> Tensor:
        return -self.network(x, noise_level, labels, *more)


@dataclass(frozen=True)
class EDMNetwork:
    """A network of NVlabs/edm in its wrapper, and the noise levels that it takes."""

    denoiser: Denoiser
    sigma_min: float
    sigma_max: float
    round: Callable[[Tensor], Tensor] = torch.clone


def edm_denoiser(fixture: Fixture, dtype: torch.dtype = torch.float64) -> EDMNetwork:
    """The denoiser of a fixture ``edm_*`` that holds a whole network: its wrapper, settings and weights."""
    wrapper, settings = fixture.meta["class"].partition("(")[0], dict(fixture.settings)
    if "inner_class" in fixture.meta:
        settings.setdefault("model_type", fixture.meta["inner_class"])
    network = fixture.network(edm_layout, settings | {"class_name": wrapper}, dtype)
    limits = float(fixture.meta.get("sigma_min", 0)), float(fixture.meta.get("sigma_max", math.inf))
    if wrapper == "EDMPrecond":
        precondition = EDMPreconditioning(settings.get("sigma_data", 0.5))
        return EDMNetwork(NetworkDenoiser(network, EDM(), precondition), *limits)
    if wrapper == "VPPrecond":
        rate = settings.get("beta_min", 0.1)
        kernel = VP(rate, rate + settings.get("beta_d", 19.9), t_min=settings.get("epsilon_t", 1e-5))
        return EDMNetwork(NetworkDenoiser(network, kernel, Eps(condition_scale=settings.get("M", 1000) - 1)), *limits)
    if wrapper == "VEPrecond":
        shown = Eps("log_ratio", condition_scale=1.0, condition_shift=math.log(0.5))
        return EDMNetwork(NetworkDenoiser(Negative(network), EDM(), shown), *limits)
    levels = iddpm_levels(settings.get("M", 1000), settings.get("C_1", 0.001), settings.get("C_2", 0.008))
    rounding = RoundingDenoiser(network, levels)
    return EDMNetwork(rounding, *limits, rounding.round)


def edm_network(fixture: Fixture) -> Iterator[Check]:
    """A network in its wrapper: denoised images, and what the network is shown and answers on the way."""
    denoiser = edm_denoiser(fixture, torch.float32).denoiser
    under = UnderKernel(denoiser, EDM())
    network = getattr(denoiser.network, "network", denoiser.network)
    seen: list[Tensor] = []
    handle = network.register_forward_hook(lambda _, given, output: seen.extend([*given[:2], output]))
    x, sigma, labels = fixture.io["x"].double(), fixture.io["sigma"].double(), fixture.classes()
    denoised = under.denoise(x, sigma, labels)
    handle.remove()
    given = dict(zip(("c_in_x", "c_noise", "F"), seen, strict=True)) | {"D": denoised}
    if "D_nolabel" in fixture.outputs:
        given["D_nolabel"] = under.denoise(x, sigma)
    if "D_augment" in fixture.outputs:
        denoiser.network = Augmented(denoiser.network, fixture.io["augment_labels"])
        given["D_augment"] = under.denoise(x, sigma, labels)
    yield from fixture.compare_all(given)


def edm_block(fixture: Fixture) -> Iterator[Check]:
    """One residual block."""
    block = edm_layout.block(fixture.settings).eval()
    block.load_state_dict(edm_layout.block_state_dict(fixture.weights(), block))
    yield fixture.compare("y", block(fixture.io["x"], fixture.io["emb"]))


def iddpm_levels(number: int, smallest_part: float, offset: float) -> Tensor:
    """Noise levels u_0 > ... > u_M = 0 of improved DDPM (Karras et al. 2022, arXiv:2206.00364, table 1)."""
    steps = torch.arange(number + 1, dtype=torch.float64)
    level = torch.sin(0.5 * math.pi * steps / number / (offset + 1)) ** 2
    parts = (level[:-1] / level[1:]).clamp(min=smallest_part).flip(0)
    levels = ((1 / parts).cumprod(0) - 1).sqrt().flip(0)
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


class ScheduleKernel(Kernel):
    """EDM's pair of a noise level schedule sigma(t) and a scaling s(t), each chosen by name, as one kernel.

    Args:
        schedule: ``vp``, ``ve`` or ``linear``.
        scaling: ``vp`` or ``none``.
        ends: Smallest and largest noise level.
        first_time: Time of the smallest level under ``vp``, whose largest has time 1.
        rounding: Rounds noise levels to those that the network knows.
    """

    def __init__(
        self,
        schedule: str,
        scaling: str,
        ends: tuple[float, float],
        first_time: float = 1e-3,
        rounding: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        self.schedule, self.scaling, self.rounding = schedule, scaling, rounding
        low, high = (math.log1p(level**2) for level in ends)
        self.slope = 2 * (low / first_time - high) / (first_time - 1)
        self.offset = high - self.slope / 2
        self.t_min, self.t_max = self.time_of_ratio(torch.tensor(ends, dtype=torch.float64)).tolist()

    def ratio(self, t: Tensor) -> Tensor:
        if self.schedule == "vp":
            return (self.slope / 2 * t**2 + self.offset * t).expm1().sqrt()
        return t.sqrt() if self.schedule == "ve" else t

    def time_of_ratio(self, ratio: Tensor) -> Tensor:
        ratio = self.rounding(ratio)
        if self.schedule == "vp":
            return ((self.offset**2 + 2 * self.slope * torch.log1p(ratio**2)).sqrt() - self.offset) / self.slope
        return ratio**2 if self.schedule == "ve" else ratio

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * torch.log1p(self.ratio(t) ** 2) if self.scaling == "vp" else torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.ratio(t)


def edm_run(
    network: EDMNetwork, options: dict[str, Any], noises: list[Tensor], labels: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One run of EDM's ``edm_sampler`` or ``ablation_sampler`` with our samplers.

    Args:
        network: Denoiser and the noise levels that it takes.
        options: Keyword arguments of the reference's function; without those of the ablation it is the plain sampler.
        noises: The unit normal start, then the noise of each step where there is churn.
        labels: Class numbers.

    Returns:
        The images, the times of the noise levels with the final 0, and the noise level of each network call.
    """
    options = {"num_steps": 18, "rho": 7, "solver": "heun", "discretization": "edm", "schedule": "linear"} | options
    spacing, number, first_time = options["discretization"], options["num_steps"], options.get("epsilon_s", 1e-3)
    plain = VP(0.1, 20.0).ratio(torch.tensor([first_time, 1.0], dtype=torch.float64)).tolist()
    low, high = {"vp": plain, "ve": (0.02, 100), "iddpm": (0.002, 81), "edm": (0.002, 80)}[spacing]
    ends = (max(_given(options, "sigma_min", low), network.sigma_min),
            min(_given(options, "sigma_max", high), network.sigma_max))  # fmt: skip
    levels = _levels(options, ends, first_time)
    assert len(levels) == number
    kernel = ScheduleKernel(options["schedule"], options.get("scaling", "none"), ends, first_time, network.round)
    start = kernel.time_of_ratio(levels)[0]
    kernel.t_max, kernel.prior_scale = start.item(), kernel.sigma(start).item()
    ours = _edm_sampler(options, levels.tolist())
    stream = Recorded(*noises) if ours.stochastic else noises[0]
    denoiser = Watched(UnderKernel(network.denoiser, kernel))
    images = ours.sample(denoiser, stream, labels)
    return images, torch.cat([ours.times(kernel), torch.zeros(1, dtype=torch.float64)]), denoiser.ratios()


def _given(options: dict[str, Any], name: str, default: float) -> float:
    return default if options.get(name) is None else options[name]


def _levels(options: dict[str, Any], ends: tuple[float, float], first_time: float) -> Tensor:
    """The noise levels of EDM's four discretisations."""
    spacing, intervals = options["discretization"], options["num_steps"] - 1
    if spacing == "vp":
        return (kernel := ScheduleKernel("vp", "none", ends, first_time)).ratio(
            time_grid(kernel, "time_uniform", intervals, 1.0, first_time)
        )
    if spacing == "iddpm":
        levels = iddpm_levels(options.get("M", 1000), options.get("C_1", 0.001), options.get("C_2", 0.008))
        levels = levels[(levels >= ends[0]) & (levels <= ends[1])]
        picked = (len(levels) - 1) / intervals * torch.arange(intervals + 1, dtype=torch.float64)
        return levels[picked.round().long()]
    spacing = {"ve": "log_snr", "edm": "edm"}[spacing]
    return time_grid(EDM(*ends), spacing, intervals, ends[1], ends[0], options["rho"])


def _edm_sampler(options: dict[str, Any], ratios: list[float]) -> Sampler:
    common = {"ratios": ratios, "coordinate": "time"}
    predictor, heun = options.get("alpha", 1.0), options["solver"] == "heun"
    if options.get("S_churn", 0) > 0:
        return EDMStochastic(
            **common,
            predictor=predictor,
            order=2 if heun else 1,
            churn=options["S_churn"],
            churn_min=options.get("S_min", 0.0),
            churn_max=float(options.get("S_max", math.inf)),
            noise_scale=options.get("S_noise", 1.0),
        )
    return Heun(**common, predictor=predictor) if heun else Euler(**common)


def edm_sampler(fixture: Fixture) -> Iterator[Check]:
    """``edm_sampler`` and ``ablation_sampler`` of NVlabs/edm, around the networks of the fixtures beside this one."""
    networks: dict[str, EDMNetwork] = {}
    for i, run in enumerate(fixture.meta["runs"]):
        name = run["network_fixture"]
        if name not in networks:
            networks[name] = edm_denoiser(fixture.beside(name))
        network = networks[name]
        noises = [fixture.io["latents"], *fixture.io.get("churn_noise", [])]
        labels = fixture.classes() if network.denoiser.num_classes else None
        images, times, called = edm_run(network, run["kwargs"], noises, labels)
        yield fixture.compare(f"run{i:02d}_x0", images)
        yield fixture.compare(f"run{i:02d}_t_steps", times)
        yield fixture.compare(f"run{i:02d}_sigma_calls", called)


class Augmented(nn.Module):
    """A network that is given the same augmentation vectors each time."""

    def __init__(self, network: nn.Module, vectors: Tensor) -> None:
        super().__init__()
        self.network, self.vectors = network, vectors
        self.image_shape, self.num_classes = network.image_shape, network.num_classes

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.network(x, noise_level, labels, self.vectors.to(x))


def edm_loss(fixture: Fixture) -> Iterator[Check]:
    """VPLoss, VELoss and EDMLoss of NVlabs/edm: squared errors of the network's output, weighted."""
    x_0, unit = fixture.io["images"].double(), fixture.io["noise_unit"].double()
    for case in fixture.meta["cases"]:
        tag, options = case["tag"], case["kwargs"]
        sigma = _loss_levels(fixture, case["loss"], options)
        network = fixture.beside(case["network_fixture"])
        denoiser = edm_denoiser(network).denoiser
        labels = fixture.classes() if denoiser.num_classes else None
        if network.meta["constructor_kwargs"].get("augment_dim") and "aug" in tag:
            denoiser.network = Augmented(denoiser.network, fixture.io["augment_labels"])
        t = denoiser.kernel.time_of_ratio(sigma.flatten())
        alpha, scaled = denoiser.scales(x_0, t)
        meaning = denoiser.parameterization
        output = denoiser(alpha * x_0 + scaled * unit, t, labels)
        target = meaning.target(x_0, unit, alpha, scaled)
        loss = (output - target) ** 2 * meaning.loss_weight(alpha, scaled)
        yield fixture.compare(f"{tag}_sigma", sigma.flatten())
        yield fixture.compare(f"{tag}_noise", unit * sigma)
        yield fixture.compare(f"{tag}_loss", loss)
        zero = torch.zeros_like(scaled)
        gain = meaning.to_x_0(zero + 1, zero, alpha, scaled) - meaning.to_x_0(zero, zero, alpha, scaled)
        yield fixture.compare(f"{tag}_weight", (meaning.loss_weight(alpha, scaled) / gain**2).flatten())
        yield fixture.compare(f"{tag}_total", loss.sum().view(1) / len(x_0))


def _loss_levels(fixture: Fixture, loss: str, options: dict[str, Any]) -> Tensor:
    uniform, normal = fixture.io["rnd_uniform"].double(), fixture.io["rnd_normal"].double()
    if loss == "VPLoss":
        rate, last = options.get("beta_min", 0.1), options.get("epsilon_t", 1e-5)
        return VP(rate, rate + options.get("beta_d", 19.9)).ratio(1 + uniform * (last - 1))
    if loss == "VELoss":
        low, high = options.get("sigma_min", 0.02), options.get("sigma_max", 100)
        return low * (high / low) ** uniform
    return (options.get("P_mean", -1.2) + options.get("P_std", 1.2) * normal).exp()
