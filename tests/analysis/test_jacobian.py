"""Jacobians of denoisers: closed forms, an independent differentiation, ranks, and likeness of gradients."""

from __future__ import annotations

import math

import pytest
import torch

from repro.analysis import gradient_similarity, jacobian, numerical_rank, spectra_along, spectrum
from repro.denoisers import (
    EmpiricalDenoiser,
    GaussianDenoiser,
    LowRankMixtureDenoiser,
    NetworkDenoiser,
    UnderKernel,
)
from repro.errors import UserError
from repro.kernels import EDM, VP, Flow
from repro.networks.mlp import MLP
from repro.noise import NoiseStream, draw_noise
from repro.parameterizations import V
from repro.samplers.heun import Heun

SHAPE = (2, 3, 3)


def network_denoiser(seed=0, num_classes=0):
    torch.manual_seed(seed)
    network = MLP(3, 2, num_classes, width=24, depth=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return NetworkDenoiser(network.double().eval(), VP(), V())


def noisy(count=3, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 5, 18, 100])
@pytest.mark.parametrize("output", ["x_0", "eps"])
def test_of_a_network_equals_torchs(output, chunk):
    denoiser, x_t, t = network_denoiser(num_classes=4), noisy(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    labels = torch.tensor([3, 0, 1])
    ours = jacobian(denoiser, x_t, t, labels, output, chunk)
    function = denoiser.denoise if output == "x_0" else denoiser.eps
    for i in range(3):
        right = torch.autograd.functional.jacobian(
            lambda x, i=i: function(x[None], t[i], labels[i : i + 1]).flatten(), x_t[i]
        )
        torch.testing.assert_close(ours[i], right.flatten(1), rtol=1e-10, atol=1e-12)


def test_of_the_empirical_optimum_is_the_posterior_covariance():
    images = torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8)
    denoiser, t = EmpiricalDenoiser(images, VP(), chunk=5), torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = VP().alpha(t), VP().sigma(t)
    x_t = alpha * (images[:2] / 127.5 - 1).double() + sigma * noisy(2)
    for ours, x in zip(jacobian(denoiser, x_t, t), x_t, strict=True):
        points = denoiser.points
        squares = (x.flatten() / alpha - points).square().sum(1)
        weights = (-squares / (2 * (sigma / alpha) ** 2)).softmax(0)
        centred = points - weights @ points
        right = centred.T @ (weights[:, None] * centred) * alpha / sigma**2
        torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [EDM(), VP(), Flow()], ids=lambda kernel: type(kernel).__name__)
def test_of_one_low_rank_gaussian(kernel):
    denoiser = LowRankMixtureDenoiser(kernel, SHAPE, components=1, rank=4)
    t = kernel.time_of_ratio(torch.tensor(0.5, dtype=torch.float64))
    found = spectrum(denoiser, noisy(2), t)
    gain = 1 / (kernel.alpha(t).item() * 1.25)
    right = torch.zeros(2, 18, dtype=torch.float64)
    right[:, :4] = gain
    torch.testing.assert_close(found.singular_values, right, rtol=1e-9, atol=1e-9)
    assert found.rank.tolist() == [4, 4]
    assert found.ratio == pytest.approx(0.5)
    assert found.trace.tolist() == pytest.approx([4 * gain] * 2)
    assert found.frobenius.tolist() == pytest.approx([2 * gain] * 2)


def test_rank_along_a_trajectory_falls_to_that_of_one_plane():
    """At high noise all planes count, at low noise the one that the image lies on; in between no more than both."""
    denoiser = LowRankMixtureDenoiser(EDM(), (3, 4, 4), components=3, rank=4)
    spectra = list(spectra_along(denoiser, Heun(steps=12), NoiseStream(range(3))))
    ratios = [each.ratio for each in spectra]
    assert ratios == sorted(ratios, reverse=True)
    assert len(spectra) == 12
    assert bool((spectra[0].rank > 8).all())
    assert spectra[-1].rank.tolist() == [4, 4, 4]
    assert all(bool((each.rank <= 12).all()) for each in spectra)


def test_rank_by_a_slow_count():
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(40, 15, generator=generator, dtype=torch.float64).pow(4).sort(descending=True).values
    for part in (0.5, 0.9, 0.99):
        for row, rank in zip(values.tolist(), numerical_rank(values, part).tolist(), strict=True):
            whole = math.sqrt(math.fsum(v * v for v in row))
            right = next(r for r in range(1, 16) if math.sqrt(math.fsum(v * v for v in row[:r])) > part * whole)
            assert rank == right
    assert numerical_rank(torch.zeros(4)).item() == 0
    assert numerical_rank(torch.ones(100)).item() == 99  # 0.99^2 of the energy, strictly: not 99 per cent of the values


def test_gradients_of_one_model_are_alike_and_of_opposites_opposite():
    denoiser, x_t, t = network_denoiser(), noisy(), torch.tensor(0.4, dtype=torch.float64)

    class Mirrored(type(denoiser)):
        def denoise(self, x_t, t, labels=None):
            return -super().denoise(x_t, t, labels)

    mirrored = Mirrored(denoiser.network, denoiser.kernel, denoiser.parameterization)
    torch.testing.assert_close(gradient_similarity(denoiser, denoiser, x_t, t), torch.ones(3, 16).double())
    opposite = gradient_similarity(denoiser, mirrored, x_t, t, output="x_0")
    torch.testing.assert_close(opposite, -torch.ones(3, 16).double())


def test_gradient_similarity_is_the_cosine_of_products_with_numbered_probes():
    first, second, x_t = network_denoiser(0), network_denoiser(1), noisy(2)
    t = torch.tensor([0.2, 0.8], dtype=torch.float64)
    ours = gradient_similarity(first, second, x_t, t, probes=[7, 3, 11])
    matrices = [jacobian(each, x_t, t, output="eps") for each in (first, second)]
    probes = draw_noise([7, 3, 11], SHAPE).double().flatten(1)
    for i in range(2):
        a, b = (probes @ matrix[i] for matrix in matrices)
        right = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        torch.testing.assert_close(ours[i], right, rtol=1e-9, atol=1e-12)


def test_gradients_do_not_depend_on_the_kernel_they_are_looked_at_through():
    denoiser, t = network_denoiser(), torch.tensor(0.5, dtype=torch.float64)
    elsewhere = UnderKernel(denoiser, EDM())
    similarity = gradient_similarity(denoiser, elsewhere, noisy(2), t)
    torch.testing.assert_close(similarity, torch.ones_like(similarity), rtol=1e-7, atol=1e-7)


def test_unrelated_gradients_are_not_alike():
    first, second = (LowRankMixtureDenoiser(EDM(), (3, 4, 4), 1, 2, bases_seed=seed) for seed in (0, 1))
    x_t, t = draw_noise(range(2), (3, 4, 4)).double(), torch.tensor(0.3, dtype=torch.float64)
    assert gradient_similarity(first, second, x_t, t, range(64), output="x_0").abs().mean() < 0.35
    same = gradient_similarity(first, first, x_t, t, range(64), output="x_0")
    torch.testing.assert_close(same, torch.ones_like(same))


def test_mistakes():
    denoiser, t = GaussianDenoiser(EDM(), SHAPE), torch.tensor(1.0)
    with pytest.raises(UserError, match="unknown output 'x0'; did you mean 'x_0'"):
        jacobian(denoiser, noisy(), t, output="x0")
    with pytest.raises(UserError, match="chunk is 0"):
        jacobian(denoiser, noisy(), t, chunk=0)
    with pytest.raises(UserError, match="part is 1"):
        numerical_rank(torch.ones(3), 1.0)
    with pytest.raises(UserError, match="compare one shape"):
        gradient_similarity(denoiser, GaussianDenoiser(EDM()), noisy(), t)
