"""The U-ViT of baofff/U-ViT, and the score, prediction and drift that its code makes of the output."""

from __future__ import annotations

from collections.abc import Iterator

from parity_checks.fixture import Check, Fixture
from parity_checks.score_sde import flow_drift
from repro.denoisers import NetworkDenoiser
from repro.kernels import VP
from repro.parameterizations import Eps
from repro.released.uvit import layout as layout

__all__ = ["uvit"]


def uvit(fixture: Fixture) -> Iterator[Check]:
    """Network, score, denoised image and probability-flow drift under the VP equation of that code."""
    network = fixture.network(layout, fixture.settings)
    x, labels = fixture.io["x"], fixture.classes("y")
    yield fixture.compare("out", network(x, fixture.io["timesteps"], labels))
    denoiser = NetworkDenoiser(network, VP(), Eps())
    x, t = x.double(), fixture.io["t"].double()
    alpha, sigma = denoiser.scales(x, t)
    score = denoiser.score(x, t, labels)
    tables = {"score": score, "x0_pred": denoiser.denoise(x, t, labels), "mean": alpha * x, "std": sigma.flatten()}
    yield from fixture.compare_all(tables | {"ode_drift": flow_drift(denoiser.kernel, x, t, score)})
