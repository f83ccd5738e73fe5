"""The posterior sampling step of DPS2022/diffusion-posterior-sampling."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from parity_checks.dpm_solver import MixtureDenoiser
from parity_checks.fixture import Check, Fixture
from repro.denoisers import Denoiser
from repro.inverse.operators import Operator
from repro.inverse.operators.filters import GaussianBlur
from repro.inverse.posterior import residual_gradient
from repro.kernels import EDM

__all__ = ["posterior_sampling"]


class _RecordedMask(Operator):
    def __init__(self, mask: Tensor) -> None:
        self.seen = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.seen.to(x)


def posterior_sampling(fixture: Fixture) -> Iterator[Check]:
    """Denoised image, gradient of the norm, norm and updated state, one image alone and all under one norm."""
    io, means = fixture.io, fixture.io["mix_means"]
    denoiser = MixtureDenoiser(EDM(), io["mix_weights"], means.flatten(1), io["mix_vars"])
    std = float(re.search(r"std ([\d.]+)", fixture.meta["tensors"]["blur_kernel"]["meaning"])[1])
    blur = GaussianBlur(io["blur_kernel"].shape[-1], std)
    operators: dict[str, Operator] = {"inpaint": _RecordedMask(io["mask"]), "blur": blur}
    yield fixture.compare("blur_kernel", blur.kernel()[None, None])
    yield fixture.compare("A_blur_x0", operators["blur"](means.double()))
    for case, sigma in enumerate(io["sigma"].double()):
        for kind, rows in (("single", slice(0, 1)), ("batch", slice(None))):
            before, after = (io[f"{name}_{case}"][rows].double() for name in ("x_prev", "x_t"))
            for name, operator in operators.items():
                x_0, norm, gradient = _pull(denoiser, operator, before, sigma, io[f"y_{name}"][rows].double())
                found = {
                    "x0hat": x_0,
                    f"grad_{name}": gradient,
                    f"norm_{name}": norm.reshape(1),
                    f"updated_{name}": after - io["scale"][case].double() * gradient,
                }
                for key, ours in found.items():
                    if f"{key}_{kind}_{case}" in fixture.outputs:
                        yield fixture.compare(f"{key}_{kind}_{case}", ours)


@torch.enable_grad()
def _pull(
    denoiser: Denoiser, operator: Operator, x_t: Tensor, sigma: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The denoised images, and the norm of all residuals together with its gradient in ``x_t``."""
    x_t = x_t.clone().requires_grad_()
    x_0 = denoiser.denoise(x_t, sigma)
    norm = (y - operator(x_0)).norm().detach()
    return x_0.detach(), norm, residual_gradient(x_t, x_0, y, operator, "squared") / norm
