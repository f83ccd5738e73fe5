"""The U-Net of openai/consistency_models with both scalings, and its samplers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from parity_checks.fixture import Check, Fixture
from repro.checkpoints.layouts import consistency as layout
from repro.denoisers import Denoiser, NetworkDenoiser
from repro.kernels import EDM
from repro.parameterizations import EDMPreconditioning
from repro.samplers.base import Run
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.steps import FixedSteps, time_grid

__all__ = ["Boundary", "CubicMidpoint", "consistency_network", "consistency_sampling"]


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


class Boundary(EDMPreconditioning):
    """The scalings of a consistency function, which is the identity at the smallest noise level."""

    def __init__(self, sigma_data: float, sigma_min: float) -> None:
        super().__init__(sigma_data, condition_scale=250.0)
        self.sigma_min = sigma_min

    def skip_and_out(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        above, variance = ratio - self.sigma_min, self.sigma_data**2
        return variance / (above**2 + variance), above * self.sigma_data * (ratio**2 + variance).rsqrt()


def _denoisers(fixture: Fixture, dtype: torch.dtype) -> dict[str, NetworkDenoiser]:
    """The fixture's network under EDM's scalings and under those of a consistency function."""
    given = fixture.meta["diffusion_kwargs"]
    network, kernel = fixture.network(layout, fixture.settings, dtype), EDM(given["sigma_min"], given["sigma_max"])
    plain = EDMPreconditioning(given["sigma_data"], condition_scale=250.0)
    boundary = Boundary(given["sigma_data"], given["sigma_min"])
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


def _consistency_images(fixture: Fixture, name: str, plain: NetworkDenoiser) -> Tensor:
    """One step, or several at the places of the level grid that the output's description lists."""
    function = plain if name.endswith("_noclip") else Clamped(plain)
    stated = re.search(r"ts=\[([0-9, ]+)\] steps=(\d+)", fixture.meta["tensors"][name]["meaning"])
    kernel, rho = plain.kernel, fixture.meta["diffusion_kwargs"]["rho"]
    x, labels = fixture.io["latents"].double() * kernel.t_max, fixture.classes("y")
    if not stated:
        return function.denoise(x, torch.tensor(kernel.t_max, dtype=torch.float64), labels)
    places, grid = [int(place) for place in stated[1].split(",")], int(stated[2])
    levels = time_grid(kernel, "edm", grid - 1, kernel.t_max, kernel.t_min, rho)[places].clamp(kernel.t_min)
    for i, (level, following) in enumerate(itertools.pairwise(levels)):
        x = function.denoise(x, level, labels)
        if following > kernel.t_min:
            x = x + fixture.io[f"noise_{i}"] * (following**2 - kernel.t_min**2).sqrt()
    return x.clamp(-1, 1)


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
