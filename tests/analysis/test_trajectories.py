"""Denoised images along a walk equal those of the exact solution on Gaussian data, for every kernel and sampler."""

from __future__ import annotations

import pytest
import torch

from repro import registry
from repro.analysis.trajectories import denoised_along
from repro.denoisers import GaussianDenoiser
from repro.errors import UserError
from repro.noise import draw_noise
from repro.samplers import RK45, DPMSolver, Euler, Heun

RATIOS = [20.0, 3.0, 0.7, 0.1]


@pytest.mark.parametrize("kernel", ["VP", "SubVP", "EDM", "Flow"])
@pytest.mark.parametrize(
    ("sampler", "error"), [(Euler(2000), 2e-2), (Heun(200), 2e-3), (DPMSolver(200, order=2), 3e-3), (RK45(), 3e-3)]
)
def test_estimates_are_those_of_the_exact_way(kernel, sampler, error):
    denoiser = GaussianDenoiser(registry.build("kernels", kernel), (1, 4, 4), mean=0.2, std=0.4)
    noise = draw_noise(range(3), (1, 4, 4)).double()
    own = denoiser.kernel
    start = torch.tensor(own.t_max, dtype=torch.float64)
    estimates = denoised_along(denoiser, sampler, range(3), RATIOS)
    for ratio, estimate in zip(RATIOS, estimates, strict=True):
        t = own.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
        exact = denoiser.denoise(denoiser.transport(noise * own.prior_scale, start, t), t)
        assert (estimate - exact).abs().max() < error
    (image,) = denoised_along(denoiser, sampler, range(3), [0.0])
    assert torch.equal(image, sampler.sample(denoiser, noise))


def test_a_level_that_is_not_passed_and_a_walk_that_is_not_one_are_refused():
    denoiser = GaussianDenoiser(registry.build("kernels", "EDM"), (1, 4, 4))
    with pytest.raises(UserError, match=r"Heun goes from noise level 80 to 0.002 and does not pass 100"):
        denoised_along(denoiser, Heun(4), [0], [100.0])
    stochastic = next(
        sampler
        for name in registry.names("samplers")
        if (sampler := registry.load("samplers", name)).stochastic is True and isinstance(sampler, type)
    )
    with pytest.raises(UserError, match="is stochastic"):
        denoised_along(denoiser, stochastic(), [0], [1.0])
