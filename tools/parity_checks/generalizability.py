"""The empirical optimum and the scores of huijieZH/Diffusion-Model-Generalizability."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from parity_checks.fixture import Check, Fixture
from repro.denoisers import EmpiricalDenoiser
from repro.kernels import EDM
from repro.metrics.functional import generalization_score, memorization_matches, nearest, reproducibility_score
from repro.metrics.functional.similarity import cosine
from repro.samplers.euler import Euler

__all__ = ["optimal_denoiser", "sscd_scores"]


def optimal_denoiser(fixture: Fixture) -> Iterator[Check]:
    """The optimal denoiser, and Euler's method on it."""
    denoiser = EmpiricalDenoiser(fixture.io["dataset"], EDM(), chunk=7)
    x, sigma = fixture.io["x"].double(), fixture.io["sigma"].double()
    for name in ("D", "D_peer"):
        if name in fixture.io:
            yield fixture.compare(name, denoiser.denoise(x, sigma))
    squares = (x.flatten(1)[:, None] - denoiser.points).square().sum(2)
    log_weights = -squares / (2 * sigma[:, None] ** 2) - denoiser.posterior(x, sigma)[1][:, None]
    yield fixture.compare("log_weights", log_weights.clamp(min=-700))
    yield fixture.compare("sampler_x0", Euler(steps=18).sample(denoiser, fixture.io["latents"]))


def sscd_scores(fixture: Fixture) -> Iterator[Check]:
    """Inner products, and the scores RP and GL at every threshold; the share of copies is 1 - GL."""
    source, target, training = (fixture.io[name] for name in ("source", "target", "training"))
    thresholds = fixture.settings["thresholds"]
    lengths = source.norm(dim=1) * target.norm(dim=1)
    rp = [reproducibility_score(source, target, each) for each in thresholds]
    gl = [generalization_score(source, training, each) for each in thresholds]
    copies = [memorization_matches(source, training, each)[0].double().mean() for each in thresholds]
    given = {
        "rp_similarity": cosine(source, target) * lengths,
        "m_max_similarity": nearest(source, training)[0],
        "thresholds": torch.tensor(thresholds, dtype=torch.float64),
        "rp_score": torch.tensor(rp, dtype=torch.float64),
        "m_score_printed": torch.tensor(gl, dtype=torch.float64),
        "m_fraction_above": torch.stack(copies),
    }
    yield from fixture.compare_all(given)
