"""Kernels and the empirical optimum against recorded tables of reference implementations."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from parity_fixture import Check, Fixture

from repro.exact import EmpiricalDenoiser
from repro.kernels import EDM, VE, VP, DiscreteVP, SubVP
from repro.samplers.euler import Euler

__all__ = ["optimal_denoiser", "score_sde_marginals"]


def optimal_denoiser(fixture: Fixture) -> Iterator[Check]:
    """The optimal denoiser of huijieZH/Diffusion-Model-Generalizability, and Euler's method on it."""
    denoiser = EmpiricalDenoiser(fixture.io["dataset"], EDM(), chunk=7)
    x, sigma = fixture.io["x"].double(), fixture.io["sigma"].double()
    for name in ("D", "D_peer"):
        if name in fixture.io:
            yield fixture.compare(name, denoiser.denoise(x, sigma))
    squares = (x.flatten(1)[:, None] - denoiser.flat).square().sum(2)
    log_weights = -squares / (2 * sigma[:, None] ** 2) - denoiser.posterior(x, sigma)[1][:, None]
    yield fixture.compare("log_weights", log_weights.clamp(min=-700))
    yield fixture.compare("sampler_x0", Euler(steps=18).sample(denoiser, fixture.io["latents"]))


def score_sde_marginals(fixture: Fixture) -> Iterator[Check]:
    """Marginals, drifts and diffusions of the three equations of yang-song/score_sde_pytorch."""
    given = fixture.meta["constructor_kwargs"]
    rates = given.get("beta_min", 0.1), given.get("beta_max", 20.0)
    kernels = {
        "vp": VP(*rates),
        "subvp": SubVP(*rates),
        "ve": VE(given.get("sigma_min", 0.01), given.get("sigma_max", 50.0)),
    }
    t, number = fixture.io["t"].double(), given.get("N", 1000)
    for name, kernel in kernels.items():
        drift = kernel.log_alpha_dot(t)
        sigma, sigma_dot = kernel.sigma(t), kernel.sigma_dot(t)
        yield fixture.compare(f"{name}_mean_coef", kernel.alpha(t))
        yield fixture.compare(f"{name}_std", sigma)
        yield fixture.compare(f"{name}_drift_coef", drift)
        diffusion = (2 * sigma * (sigma_dot - drift * sigma)).sqrt()
        yield fixture.compare(f"{name}_diffusion", diffusion)
        if name == "subvp":
            yield fixture.compare("subvp_discretize_G", diffusion / number**0.5)
        prior = torch.distributions.Normal(0.0, torch.tensor(kernel.prior_scale, dtype=torch.float64))
        yield fixture.compare(f"{name}_prior_logp", prior.log_prob(fixture.io["z"].double()).flatten(1).sum(1))
    yield fixture.compare("subvp_discretize_f", kernels["subvp"].log_alpha_dot(t) / number)
    discrete = DiscreteVP(steps=number, log_snr_min=-math.inf)
    grid = torch.arange(1, number + 1, dtype=torch.float64) / number
    alpha = discrete.alpha(grid)
    betas = 1 - (alpha / torch.cat([torch.ones(1), alpha[:-1]])) ** 2
    yield fixture.compare("vp_alphas_cumprod", alpha**2)
    yield fixture.compare("vp_sqrt_1m_alphas_cumprod", discrete.sigma(grid))
    yield fixture.compare("vp_discrete_betas", betas)
    at = (t * (number - 1)).long()
    yield fixture.compare("vp_discretize_f", (1 - betas[at]).sqrt() - 1)
    yield fixture.compare("vp_discretize_G", betas[at].sqrt())
    sigmas = kernels["ve"].sigma(torch.linspace(0, 1, number, dtype=torch.float64))
    yield fixture.compare("ve_discrete_sigmas", sigmas)
    yield fixture.compare("ve_discretize_f", kernels["ve"].log_alpha_dot(t) / number)
    yield fixture.compare("ve_discretize_G", torch.diff(sigmas**2, prepend=torch.zeros(1)).sqrt()[at])
