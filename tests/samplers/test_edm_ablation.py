"""EDM's samplers with every option, against a slow reimplementation in the paper's own notation.

Karras et al. 2022, arXiv:2206.00364, table 1 and algorithms 1 to 3: state x, noise level sigma(t), scaling s(t).
"""

import itertools
import math

import numpy as np
import pytest
import torch
from parity_checks.dpm_solver import MixtureDenoiser
from parity_checks.edm import EDMNetwork, edm_run

from repro.kernels import EDM
from repro.samplers.heun import Heun
from repro.samplers.stochastic import EDMStochastic

WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
VARIANCES = torch.tensor([0.04, 0.1, 0.02])
NOISES = torch.randn(30, 4, 6, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def denoise(x, sigma):
    total = VARIANCES.double().numpy() + sigma**2
    distance = x[:, None] - MEANS.double().numpy()
    logits = np.log(WEIGHTS.double().numpy()) - 3 * np.log(total) - (distance**2).sum(2) / (2 * total)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    noise = (share[:, :, None] * distance / total[:, None]).sum(1)
    return x - sigma**2 * noise


class Schedule:
    """sigma, s and their derivatives, written out by hand."""

    def __init__(self, schedule, scaling, low, high, first_time):
        self.schedule, self.scaling = schedule, scaling
        a, b = math.log(1 + low**2), math.log(1 + high**2)
        self.beta_d = 2 * (a / first_time - b) / (first_time - 1)
        self.beta_min = b - self.beta_d / 2

    def sigma(self, t):
        if self.schedule == "vp":
            return math.sqrt(math.exp(self.beta_d * t**2 / 2 + self.beta_min * t) - 1)
        return math.sqrt(t) if self.schedule == "ve" else t

    def sigma_dot(self, t):
        if self.schedule == "vp":
            return (self.beta_d * t + self.beta_min) * (self.sigma(t) + 1 / self.sigma(t)) / 2
        return 1 / (2 * math.sqrt(t)) if self.schedule == "ve" else 1.0

    def inverse(self, sigma):
        if self.schedule == "vp":
            root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log(1 + sigma**2))
            return (root - self.beta_min) / self.beta_d
        return sigma**2 if self.schedule == "ve" else sigma

    def scale(self, t):
        return 1 / math.sqrt(1 + self.sigma(t) ** 2) if self.scaling == "vp" else 1.0

    def scale_dot(self, t):
        return -self.sigma(t) * self.sigma_dot(t) * self.scale(t) ** 3 if self.scaling == "vp" else 0.0

    def slope(self, x, t):
        rate = self.sigma_dot(t) / self.sigma(t)
        clean = denoise(x / self.scale(t), self.sigma(t))
        return (rate + self.scale_dot(t) / self.scale(t)) * x - rate * self.scale(t) * clean


def levels(options, low, high):
    n = options["num_steps"]
    part = [i / (n - 1) for i in range(n)]
    if options["discretization"] == "vp":
        schedule = Schedule("vp", "none", low, high, 1e-3)
        return [schedule.sigma(1 + p * (1e-3 - 1)) for p in part]
    if options["discretization"] == "ve":
        return [math.sqrt(high**2 * (low**2 / high**2) ** p) for p in part]
    if options["discretization"] == "edm":
        rho = options.get("rho", 7)
        return [(high ** (1 / rho) + p * (low ** (1 / rho) - high ** (1 / rho))) ** rho for p in part]
    u = [0.0] * 1001
    for j in range(1000, 0, -1):
        now, before = (math.sin(math.pi / 2 * k / 1000 / 1.008) ** 2 for k in (j, j - 1))
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(before / now, 0.001) - 1)
    u = [level for level in u if low <= level <= high]
    return [u[round((len(u) - 1) * p)] for p in part]


def reference(options, low, high):
    schedule = Schedule(options.get("schedule", "linear"), options.get("scaling", "none"), low, high, 1e-3)
    times = [schedule.inverse(sigma) for sigma in levels(options, low, high)]
    noises = [noise[:, :, 0, 0].numpy() for noise in NOISES]
    x = noises[0] * schedule.sigma(times[0]) * schedule.scale(times[0])
    place = options.get("alpha", 1)
    for i, (t, s) in enumerate(itertools.pairwise([*times, 0.0])):
        sigma, churned = schedule.sigma(t), options.get("S_churn", 0)
        inside = options.get("S_min", 0) <= sigma <= options.get("S_max", math.inf)
        gamma = min(churned / options["num_steps"], math.sqrt(2) - 1) if inside else 0
        up = schedule.inverse(sigma * (1 + gamma)) if gamma else t
        added = math.sqrt(max(schedule.sigma(up) ** 2 - sigma**2, 0)) * options.get("S_noise", 1)
        x = schedule.scale(up) * (x / schedule.scale(t) + added * noises[i + 1])
        h, slope = s - up, schedule.slope(x, up)
        if options.get("solver", "heun") == "euler" or s == 0:
            x = x + h * slope
        else:
            ahead = schedule.slope(x + place * h * slope, up + place * h)
            x = x + h * ((1 - 1 / (2 * place)) * slope + ahead / (2 * place))
    return torch.from_numpy(x)[:, :, None, None]


def ours(options, low, high):
    network = EDMNetwork(MixtureDenoiser(EDM(), WEIGHTS, MEANS, VARIANCES), 0.0, math.inf)
    return edm_run(network, {"sigma_min": low, "sigma_max": high} | options, list(NOISES.clone()))[0]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("scaling", ["vp", "none"])
@pytest.mark.parametrize("schedule", ["vp", "ve", "linear"])
@pytest.mark.parametrize("discretization", ["vp", "ve", "iddpm", "edm"])
def test_every_combination(discretization, schedule, scaling, solver):
    options = {"num_steps": 9, "discretization": discretization, "schedule": schedule}
    options |= {"scaling": scaling, "solver": solver}
    torch.testing.assert_close(ours(options, 0.02, 60.0), reference(options, 0.02, 60.0), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.5},
        {"alpha": 2 / 3, "schedule": "vp", "scaling": "vp"},
        {"rho": 3, "num_steps": 5},
        {"S_churn": 3},
        {"S_churn": 40, "S_min": 0.05, "S_max": 10, "S_noise": 1.007},
        {"S_churn": 5, "solver": "euler"},
        {"S_churn": 5, "schedule": "vp", "scaling": "vp", "discretization": "vp", "S_max": 30},
        {"S_churn": 5, "schedule": "ve", "discretization": "ve", "alpha": 0.7},
    ],
    ids=str,
)
def test_further_options(options):
    options = {"num_steps": 8, "discretization": "edm"} | options
    torch.testing.assert_close(ours(options, 0.01, 50.0), reference(options, 0.01, 50.0), rtol=1e-7, atol=1e-8)


def test_public_names_are_edm():
    """Heun and EDMStochastic as a user writes them are EDM's sampler, without any of the ablation's machinery."""
    denoiser = MixtureDenoiser(EDM(), WEIGHTS, MEANS, VARIANCES)
    plain = reference({"num_steps": 18, "discretization": "edm"}, 0.002, 80.0)
    torch.testing.assert_close(Heun().sample(denoiser, NOISES[0]), plain, rtol=1e-9, atol=1e-9)

    class Stream:
        left = iter(NOISES.clone())

        def draw(self, shape):
            return next(self.left)

    options = {"num_steps": 12, "discretization": "edm", "S_churn": 10, "S_min": 0.05, "S_max": 50}
    churned = reference(options, 0.002, 80.0)
    images = EDMStochastic(steps=12, churn=10).sample(denoiser, Stream())
    torch.testing.assert_close(images, churned, rtol=1e-9, atol=1e-9)
