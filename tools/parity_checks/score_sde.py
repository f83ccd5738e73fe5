"""Networks, scores, losses and equations of yang-song/score_sde_pytorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from parity_checks.fixture import Check, Fixture
from repro.denoisers import NetworkDenoiser
from repro.kernels import VE, VP, DiscreteVP, Kernel, SubVP
from repro.parameterizations import Eps
from repro.released.score_sde import layout as layout

__all__ = ["flow_drift", "score_sde_marginals", "score_sde_network"]


def diffusion(kernel: Kernel, t: Tensor) -> Tensor:
    """The diffusion g(t) of the forward equation, from g^2 = 2 sigma (sigma' - f sigma)."""
    sigma = kernel.sigma(t)
    return (2 * sigma * (kernel.sigma_dot(t) - kernel.log_alpha_dot(t) * sigma)).sqrt()


def flow_drift(kernel: Kernel, x: Tensor, t: Tensor, score: Tensor, part: float = 0.5) -> Tensor:
    """f(t) x - part g(t)^2 score: the drift of the probability-flow ODE, and with part 1 of the reverse SDE."""
    f, g = kernel.log_alpha_dot(t)[:, None, None, None], diffusion(kernel, t)[:, None, None, None]
    return f * x - part * g**2 * score


def discretisation(kernel: Kernel, t: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The factor of x and the noise scale of one of N steps of the forward equation."""
    at = (t * (number - 1)).long()
    if isinstance(kernel, SubVP):
        return kernel.log_alpha_dot(t) / number, diffusion(kernel, t) / number**0.5
    if isinstance(kernel, VP):
        betas = _table(kernel, number)[1]
        return (1 - betas[at]).sqrt() - 1, betas[at].sqrt()
    steps = torch.diff(_levels(kernel, number) ** 2, prepend=torch.zeros(1))
    return kernel.log_alpha_dot(t) / number, steps.sqrt()[at]


def _table(kernel: VP, number: int) -> tuple[Tensor, Tensor]:
    """DDPM's signal scales and betas, linear between the rates of a VP kernel; of our kernel where it has those."""
    if (kernel.rate_min, kernel.rate_max) == (0.1, 20.0):
        grid = torch.arange(1, number + 1, dtype=torch.float64) / number
        alphas = DiscreteVP(steps=number, log_snr_min=-math.inf).alpha(grid)
        return alphas, 1 - (alphas / torch.cat([torch.ones(1), alphas[:-1]])) ** 2
    betas = torch.linspace(kernel.rate_min / number, kernel.rate_max / number, number, dtype=torch.float64)
    return (1 - betas).cumprod(0).sqrt(), betas


def _levels(kernel: VE, number: int) -> Tensor:
    return kernel.sigma(torch.linspace(0, 1, number, dtype=torch.float64))


def _kernels(model: dict[str, Any]) -> dict[str, Kernel]:
    rates = model.get("beta_min", 0.1), model.get("beta_max", 20.0)
    levels = model.get("sigma_min", 0.01), model.get("sigma_max", 50.0)
    return {"vp": VP(*rates), "subvp": SubVP(*rates), "ve": VE(*levels)}


def score_sde_marginals(fixture: Fixture) -> Iterator[Check]:
    """Marginals, drifts and diffusions of the three equations."""
    kernels = _kernels(fixture.settings)
    t, number = fixture.io["t"].double(), fixture.settings.get("N", 1000)
    given = {}
    for name, kernel in kernels.items():
        prior = torch.distributions.Normal(0.0, torch.tensor(kernel.prior_scale, dtype=torch.float64))
        f, noise = discretisation(kernel, t, number)
        given |= {
            f"{name}_mean_coef": kernel.alpha(t),
            f"{name}_std": kernel.sigma(t),
            f"{name}_drift_coef": kernel.log_alpha_dot(t),
            f"{name}_diffusion": diffusion(kernel, t),
            f"{name}_discretize_f": f,
            f"{name}_discretize_G": noise,
            f"{name}_prior_logp": prior.log_prob(fixture.io["z"].double()).flatten(1).sum(1),
        }
    alphas, betas = _table(kernels["vp"], number)
    given |= {"vp_alphas_cumprod": alphas**2, "vp_sqrt_1m_alphas_cumprod": (1 - alphas**2).sqrt()}
    given |= {"vp_discrete_betas": betas, "ve_discrete_sigmas": _levels(kernels["ve"], number)}
    yield from fixture.compare_all(given)


def score_sde_network(fixture: Fixture) -> Iterator[Check]:
    """Output, scores, reverse drifts, reverse steps and losses of a network, and the order of its averaged tensors."""
    model, training = fixture.settings["model"], fixture.settings["training"]
    kernel = _kernels(model)[training["sde"].removesuffix("sde")]
    network, number = fixture.network(layout, fixture.settings), model["num_scales"]
    yield fixture.compare("raw_out", network(fixture.io["x"], fixture.io["labels"].float()))
    if "shadow_params_order" in fixture.meta:
        yield fixture.compare_averaged(layout.shadow_names(network))
    continuous, discrete = _continuous_score(network, kernel), _discrete_score(network, kernel, number)
    x, t = fixture.io["x"].double(), fixture.io["t"].double()
    score = continuous if "score_continuous" in fixture.outputs else discrete
    f, noise = (part[:, None, None, None] for part in discretisation(kernel, t, number))
    used = continuous if training["continuous"] else discrete
    given = {
        "score_continuous": score(x, t),
        "pf_ode_drift": flow_drift(kernel, x, t, score(x, t)),
        "reverse_sde_drift": flow_drift(kernel, x, t, score(x, t), part=1.0),
        "reverse_discretize_f": f * x - noise**2 * used(x, t),
        "reverse_discretize_G": noise.flatten(),
    }
    if "score_discrete" in fixture.outputs:
        given["score_discrete"] = discrete(x, t)
    if "loss_x0" in fixture.io:
        given |= _losses(fixture, kernel, continuous, training.get("reduce_mean", True))
    yield from fixture.compare_all(given)


_Function = Callable[[Tensor, Tensor], Tensor]


def _continuous_score(network: torch.nn.Module, kernel: Kernel) -> _Function:
    if not isinstance(kernel, VE):
        return NetworkDenoiser(network, kernel, Eps()).score

    def score(x: Tensor, t: Tensor) -> Tensor:
        return network(x.float(), kernel.sigma(t).float()).double()

    return score


def _discrete_score(network: torch.nn.Module, kernel: Kernel, number: int) -> _Function:
    def score(x: Tensor, t: Tensor) -> Tensor:
        if isinstance(kernel, VE):
            return network(x.float(), ((1 - t) * (number - 1)).round().float()).double()
        sigmas = (1 - _table(kernel, number)[0] ** 2).sqrt()
        level = t * (number - 1)
        return -network(x.float(), level.float()).double() / sigmas[level.long()][:, None, None, None]

    return score


def _losses(fixture: Fixture, kernel: Kernel, score: _Function, mean: bool) -> dict[str, Tensor]:
    x_0, z, t = (fixture.io[f"loss_{name}"].double() for name in ("x0", "z", "t"))
    alpha, sigma = kernel.alpha(t)[:, None, None, None], kernel.sigma(t)[:, None, None, None]
    found = score(alpha * x_0 + sigma * z, t)
    reduced = (lambda squares: squares.mean(1)) if mean else (lambda squares: squares.sum(1) / 2)
    plain = reduced((found * sigma + z).square().flatten(1))
    weighted = reduced((found + z / sigma).square().flatten(1)) * diffusion(kernel, t) ** 2
    return {"loss_sde": plain.mean(), "loss_sde_likelihood_weighted": weighted.mean()}
