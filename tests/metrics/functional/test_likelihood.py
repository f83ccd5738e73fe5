"""Likelihoods against closed forms: Gaussian data, and the mixture of Gaussians on planes."""

from __future__ import annotations

import math

import pytest
import torch

from repro.denoisers import FittedGaussianDenoiser, LowRankMixtureDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, Flow, SubVP
from repro.metrics.functional import bits_per_dimension, log_density
from repro.noise import mixture_bases


def points(count=300):
    return torch.rand(count, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def gaussian_log_density(x, mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))


@pytest.mark.parametrize("kernel", [VP(), SubVP(), VE(), EDM(), Flow()], ids=lambda kernel: type(kernel).__name__)
def test_gaussian_data(kernel):
    """Within 1e-3 bits: what is left is that the prior takes the noised data for pure noise."""
    denoiser, x = FittedGaussianDenoiser(points(), kernel), points(6)
    r = kernel.ratio(torch.tensor(kernel.t_min, dtype=torch.float64))
    covariance = torch.cov(points().flatten(1).T, correction=0) + r**2 * torch.eye(9)
    right = gaussian_log_density(x, points().flatten(1).mean(0), covariance)
    found = log_density(denoiser, x, steps=128, trace="exact")
    assert ((found - right) / (9 * math.log(2))).abs().max() < 1e-3


def test_random_traces_agree_within_their_error():
    pictures = ((points(40) + 1) * 127.5).round().to(torch.uint8)
    denoiser = FittedGaussianDenoiser(points(), EDM())
    exact = bits_per_dimension(denoiser, pictures, steps=32, trace="exact")
    random = bits_per_dimension(denoiser, pictures, steps=32, probes=32)
    assert (exact.error == 0).all()
    deviation = (random.bits - exact.bits) / random.error
    assert deviation.square().mean() < 2
    assert deviation.abs().max() < 5


def test_the_mixture():
    """Points of the mixture, blurred by the smallest noise level: the density is a sum of two Gaussians."""
    kernel = EDM(sigma_min=0.05)
    denoiser, bases = LowRankMixtureDenoiser(kernel, (1, 3, 3), 2, 3), mixture_bases((1, 3, 3), 2, 3, 0)
    generator = torch.Generator().manual_seed(2)
    inside = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    x = torch.stack([bases[i % 2] @ code for i, code in enumerate(inside)])
    x = (x + 0.05 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).view(-1, 1, 3, 3)
    parts = [
        gaussian_log_density(x, torch.zeros(9).double(), basis @ basis.T + 0.05**2 * torch.eye(9)) for basis in bases
    ]
    right = torch.stack(parts).logsumexp(0) - math.log(2)
    signs = torch.randint(0, 2, (64, 30, 1, 3, 3), generator=generator).double() * 2 - 1
    random = log_density(denoiser, x, steps=200, probes=signs)
    exact = log_density(denoiser, x, steps=200, trace="exact")
    assert ((exact - right) / (9 * math.log(2))).abs().max() < 1e-2
    mean, error = random.mean(), random.mean(1).std() / 8
    assert abs(mean - right.mean()) < 2 * error + 0.01


def test_likelier_images_have_fewer_bits():
    denoiser = FittedGaussianDenoiser(points() * 0.2, EDM())
    near, far = (torch.full((1, 1, 3, 3), value, dtype=torch.uint8) for value in (128, 250))
    near_bits, far_bits = (bits_per_dimension(denoiser, each, trace="exact", steps=32).bits for each in (near, far))
    assert near_bits < 7 < far_bits


def test_mistakes():
    denoiser = FittedGaussianDenoiser(points(), EDM())
    with pytest.raises(UserError, match="uint8 images of the model's shape"):
        bits_per_dimension(denoiser, points(2))
    with pytest.raises(UserError, match="trace"):
        bits_per_dimension(denoiser, torch.zeros(1, 1, 3, 3, dtype=torch.uint8), trace="guess")
