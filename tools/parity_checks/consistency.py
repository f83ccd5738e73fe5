"""The diffusion samplers of openai/consistency_models, around its U-Net with EDM's scalings."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from parity_fixture import Check, Fixture
from safetensors.torch import load_file
from torch import Tensor

from repro import registry
from repro.checkpoints.layouts import consistency as layout
from repro.denoisers import Denoiser, NetworkDenoiser
from repro.kernels import EDM
from repro.parameterizations import EDMPreconditioning
from repro.samplers.base import Run
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.steps import FixedSteps

__all__ = ["CubicMidpoint", "consistency_sampling"]


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


def consistency_sampling(fixture: Fixture) -> Iterator[Check]:
    """``karras_sample`` with the samplers heun, euler, dpm and progdist; the consistency samplers are not here."""
    settings = fixture.meta["diffusion_kwargs"]
    record = layout.settings(fixture.meta["constructor_kwargs"])
    network = registry.build("networks", record["name"], **record["args"])
    network.load_state_dict(layout.state_dict(load_file(fixture.folder / "weights.safetensors"), network))
    kernel = EDM(settings["sigma_min"], settings["sigma_max"])
    precondition = EDMPreconditioning(settings["sigma_data"], condition_scale=250.0)
    plain = NetworkDenoiser(network.double().eval(), kernel, precondition)
    for name in fixture.io:
        found = re.fullmatch(r"(heun|euler|progdist|dpm2|sigmas)_(\d+)(_noclip)?", name)
        if not found:
            continue
        kind, steps, unclamped = found[1], int(found[2]), found[3]
        sampler = {
            "heun": lambda n: Heun(steps=n, rho=settings["rho"]),
            "euler": lambda n: Euler(steps=n, rho=settings["rho"]),
            "progdist": lambda n: Euler(steps=n, rho=settings["rho"], final_denoise=False),
            "dpm2": lambda n: CubicMidpoint(n, settings["rho"]),
            "sigmas": lambda n: Euler(steps=n, rho=settings["rho"]),
        }[kind](steps)
        if kind == "sigmas":
            yield fixture.compare(name, torch.cat([sampler.times(kernel), torch.zeros(1)]))
        else:
            images = sampler.sample(plain if unclamped else Clamped(plain), fixture.io["latents"])
            yield fixture.compare(name, images.clamp(-1, 1))
