"""Images walked back to their noises: closed forms on Gaussian data, orders, and mistakes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from repro import encode, registry
from repro.denoisers import FittedGaussianDenoiser, GaussianDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VP, Flow, SubVP
from repro.models import Exact
from repro.models.gan import GANModel
from repro.noise import draw_noise
from repro.samplers import RK45, DPMSolver, EDMStochastic, Euler, Heun

KERNELS = [VP(), SubVP(), EDM(), Flow()]


def images(count=300):
    return torch.rand(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def ends(kernel):
    return torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_the_way_back_is_the_closed_form_of_correlated_gaussian_data(kernel):
    denoiser, x = FittedGaussianDenoiser(images(), kernel), images(5)
    right = denoiser.transport(x, *ends(kernel)) / kernel.prior_scale
    found = RK45(rtol=1e-12, atol=1e-13).encode(denoiser, x)
    assert (found - right).abs().max() < 1e-8


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(Euler, 1), (Heun, 2), (lambda n, **k: DPMSolver(2 * n, order=2, spacing="log_snr", **k), 2)],
    ids=["Euler", "Heun", "DPMSolver-2"],
)
def test_errors_fall_with_the_order_of_the_sampler(sampler, order):
    kernel = EDM(sigma_min=0.1)
    denoiser, x = GaussianDenoiser(kernel, (1, 2, 2)), images(5)[..., :2, :2]
    right = denoiser.transport(x, *ends(kernel)) / kernel.prior_scale
    errors = [(sampler(n, final_denoise=False).encode(denoiser, x) - right).abs().max().item() for n in (40, 80, 160)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(slope - order) < 0.2 for slope in slopes), slopes


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize(
    ("sampler", "bound"),
    [(Heun(100), 2e-3), (DPMSolver(200, order=2), 3e-3), (RK45(1e-10, 1e-10, final_denoise=True), 1e-7)],
)
def test_noise_drawn_and_encoded_comes_back(kernel, sampler, bound):
    denoiser, noise = FittedGaussianDenoiser(images(), kernel), draw_noise(range(5), (1, 4, 4))
    assert (sampler.encode(denoiser, sampler.sample(denoiser, noise)) - noise).abs().max() < bound


def test_classes_have_noises_of_their_own():
    labels = torch.arange(300) % 2
    shifted = images() * 0.5 + labels.view(-1, 1, 1, 1) * 0.5
    denoiser = FittedGaussianDenoiser(shifted, EDM(), labels)
    of_one, of_other = (Heun(20).encode(denoiser, shifted[:4], torch.full((4,), label)) for label in (0, 1))
    assert (of_one - of_other).abs().max() > 0.1
    for label in (0, 1):
        alone = FittedGaussianDenoiser(shifted[labels == label], EDM())
        both = denoiser.denoise(shifted[:4], torch.tensor(0.7), torch.full((4,), label))
        assert torch.allclose(both, alone.denoise(shifted[:4], torch.tensor(0.7)), atol=1e-12)


def test_the_fitted_gaussian_is_the_best_affine_denoiser():
    """Against least squares over many noisy draws of few points."""
    few, r = images(40).view(-1, 1, 4, 4)[:, :, :1, :2], 0.6
    denoiser, generator = FittedGaussianDenoiser(few, EDM()), torch.Generator().manual_seed(3)
    x_0 = few.repeat(20_000, 1, 1, 1)
    x_t = x_0 + r * torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    known = torch.cat([x_t.flatten(1), torch.ones(len(x_t), 1)], 1)
    line = torch.linalg.lstsq(known, x_0.flatten(1)).solution
    ours = denoiser.denoise(x_t[:50], torch.tensor(r, dtype=torch.float64)).flatten(1)
    assert (ours - known[:50] @ line).abs().max() < 5e-3


def test_bytes_and_batches():
    model = Exact(GaussianDenoiser(VP(), (1, 4, 4)), Heun(6))
    pictures = torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8)
    together = encode(model, pictures)
    assert together.dtype == torch.float32
    assert torch.equal(encode(model, pictures, batch_size=2), together)
    assert torch.allclose(encode(model, pictures.double() / 127.5 - 1), together, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, x: encode(model, x, sampler=EDMStochastic()), "EDMStochastic draws noise"),
        (lambda model, x: encode(model, x, sampler=DPMSolver(9)), "not as singlestep of order 3"),
        (lambda model, x: encode(model, x[:, :, :3]), r"images are \(1, 3, 4\), the model's are \(1, 4, 4\)"),
        (lambda model, x: encode(model, x + 3), r"must lie in \[-1, 1\]"),
        (lambda model, x: encode(model, x, torch.zeros(5, dtype=torch.int64)), "unconditional model"),
        (lambda model, x: encode(GANModel(8, 1, width=4, latent=16), torch.zeros(1, 1, 8, 8)), "in one pass"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(UserError, match=message):
        call(Exact(GaussianDenoiser(VP(), (1, 4, 4)), Heun(6)), images(5))


@pytest.mark.parametrize("name", registry.names("samplers"))
def test_a_sampler_walks_back_or_says_that_it_cannot(name):
    if name == "PosteriorSampler":
        return
    sampler, denoiser = registry.build("samplers", name), GaussianDenoiser(EDM(), (1, 4, 4))
    try:
        sampler.check_reversible()
    except UserError as refusal:
        with pytest.raises(UserError, match=str(refusal)[:20]):
            sampler.encode(denoiser, images(2))
    else:
        assert sampler.encode(denoiser, images(2)).isfinite().all()
