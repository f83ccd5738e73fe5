"""Posterior sampling: against an independent loop, its evaluations, its batches, its mistakes."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image

from repro import records, registry
from repro.data.digits import Digits
from repro.denoisers import Denoiser, EmpiricalDenoiser, GaussianDenoiser
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.inverse.operators.filters import Downsample, HighDynamicRange
from repro.inverse.operators.masks import CentreMask
from repro.inverse.posterior import PosteriorSampler
from repro.kernels import EDM, VP
from repro.metrics.functional import generalization_score
from repro.noise import NoiseStream, draw_noise
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.ode import RK45
from repro.samplers.stochastic import Ancestral
from repro.testing.samplers import check_device

SEEDS = [3, 1, 8]


class Smooth(Denoiser):
    """A nonlinear denoiser in closed form: the posterior mean of pixels that are -1 or 1."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel, self.image_shape, self.calls = kernel, (1, 8, 8), 0

    def denoise(self, x_t, t, labels=None):
        self.calls += 1
        alpha, sigma = self.scales(x_t, t)
        return torch.tanh(alpha * x_t / sigma**2)


def data():
    return Digits(subset=20)


def by_hand(kernel, steps, step_size, y, operator):
    """Euler's method in the ratio, and the gradient of each image's own norm, image after image."""
    grid = Euler(steps=steps)
    times = [step.t for step in grid.trajectory(Smooth(kernel), NoiseStream(SEEDS))] + [None]
    results = []
    for seed, target in zip(SEEDS, y, strict=True):
        x = draw_noise([seed], (1, 8, 8)).double() * kernel.prior_scale
        for t, s in itertools.pairwise(times):
            x = x.detach().requires_grad_()
            alpha, sigma = kernel.alpha(t), kernel.sigma(t)
            x_0 = torch.tanh(alpha * x / sigma**2)
            (gradient,) = torch.autograd.grad((target - operator(x_0)[0]).square().sum().sqrt(), x)
            eps = (x - alpha * x_0) / sigma
            x = (x_0 if s is None else kernel.alpha(s) * x_0 + kernel.sigma(s) * eps) - step_size * gradient
        results.append(x.detach())
    return torch.cat(results)


@pytest.mark.parametrize("kernel", [VP(), EDM()], ids=["VP", "EDM"])
def test_it_equals_an_independent_loop(kernel):
    operator, truth = CentreMask(), data()
    sampler = PosteriorSampler(Euler(steps=7), operator, truth, step_size=0.3)
    y = operator(to_float(truth.images()[SEEDS]).double())
    expected = by_hand(kernel, 7, 0.3, y, operator)
    torch.testing.assert_close(sampler.sample(Smooth(kernel), NoiseStream(SEEDS)), expected, rtol=1e-9, atol=1e-9)


def test_the_papers_hundred_evaluations():
    denoiser, sampler = Smooth(VP()), PosteriorSampler(DPMSolver(steps=100, order=3), CentreMask(), data())
    steps = list(sampler.trajectory(denoiser, NoiseStream(SEEDS)))
    assert (len(steps), denoiser.calls, sampler.evaluations) == (34, 100, 100)


@pytest.mark.parametrize("inner", [Euler(steps=6), Heun(steps=6), DPMSolver(steps=9)], ids=lambda s: type(s).__name__)
def test_without_a_pull_it_is_the_sampler_alone(inner):
    sampler = PosteriorSampler(inner, CentreMask(), data(), step_size=0.0)
    plain = inner.sample(Smooth(VP()), NoiseStream(SEEDS))
    assert torch.equal(sampler.sample(Smooth(VP()), NoiseStream(SEEDS)), plain)


def test_the_pull_lowers_the_residual_and_projection_ends_it():
    operator, truth = Downsample(2), data()
    y = operator(to_float(truth.images()[SEEDS]).double())

    def residual(**options):
        sampler = PosteriorSampler(DPMSolver(steps=100), operator, truth, **options)
        return (operator(sampler.sample(GaussianDenoiser(VP()), NoiseStream(SEEDS))) - y).flatten(1).norm(dim=1)

    free, pulled, projected = residual(step_size=0.0), residual(step_size=2.0), residual(step_size=2.0, project=True)
    assert (pulled < 0.5 * free).all()
    assert projected.max() < 1e-5


def test_images_do_not_depend_on_the_batch_nor_on_inference_mode():
    sampler = PosteriorSampler(Heun(steps=8), CentreMask(), data(), noise=0.05)
    together = sampler.sample(Smooth(EDM()), NoiseStream(SEEDS))
    alone = torch.cat([sampler.sample(Smooth(EDM()), NoiseStream([seed])) for seed in SEEDS])
    with torch.inference_mode():
        inferred = sampler.sample(Smooth(EDM()), NoiseStream(SEEDS))
    torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-10)
    assert torch.equal(inferred, together)


def test_observations_are_numbered_like_noise():
    truth = data()
    own = PosteriorSampler(Euler(), CentreMask(), truth, noise=0.1)
    fixed = PosteriorSampler(Euler(), CentreMask(), truth, observation=4, noise=0.1)
    assert torch.equal(own.truths([3, 23]), truth.images()[[3, 3]])
    assert torch.equal(fixed.truths([3, 7]), truth.images()[[4, 4]])
    assert torch.equal(own.measurements([3, 5])[1], own.measurements([5])[0])
    assert not torch.equal(own.measurements([3])[0], own.measurements([23])[0])
    assert torch.equal(fixed.measurements([3])[0], fixed.measurements([8])[0])
    added = PosteriorSampler(Euler(), Downsample(), Digits(), noise=0.1).measurements(range(1000))
    clean = PosteriorSampler(Euler(), Downsample(), Digits()).measurements(range(1000))
    assert (added - clean).std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PosteriorSampler(Ancestral(), CentreMask(), data()), "draws noise"),
        (lambda: PosteriorSampler(RK45(), CentreMask(), data()), "lets every image choose its own steps"),
        (lambda: PosteriorSampler(Euler(), CentreMask(), data(), step_size=-1.0), "step_size is -1"),
        (lambda: PosteriorSampler(Euler(), HighDynamicRange(), data(), project=True), "project needs a linear"),
        (lambda: PosteriorSampler(Euler(), CentreMask(), data(), norm="l3"), "norm"),
        (lambda: PosteriorSampler(Euler(), CentreMask(), data(), observation=99).truths([0]), "observation is 99"),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_rebuilt_from_its_record():
    sampler = PosteriorSampler(Heun(steps=5), CentreMask(0.3), data(), noise=0.1, step_size=0.7)
    again = records.rebuild(records.record_of(sampler))
    images = [each.sample(Smooth(EDM()), NoiseStream(SEEDS)) for each in (sampler, again)]
    assert torch.equal(*images)


def test_the_exact_denoiser_restores_the_measured_training_image():
    """With a strong pull every noise becomes the image that it measures; without one, some other training image."""
    images = data().images()
    optimum = EmpiricalDenoiser(images, VP(), chunk=7)

    def nearest(step_size):
        inner = DPMSolver(steps=100, order=3, final_denoise=True)
        sampler = PosteriorSampler(inner, CentreMask(), data(), step_size=step_size)
        drawn = to_uint8(sampler.sample(optimum, NoiseStream(range(20))))
        assert generalization_score(drawn.flatten(1).float(), images.flatten(1).float(), 0.99) == 0
        apart = (drawn.int()[:, None] - images.int()).flatten(2).abs().amax(2)
        assert torch.equal(apart.amin(1), torch.zeros(20, dtype=torch.int32))
        return apart.argmin(1)

    assert torch.equal(nearest(10.0), torch.arange(20))
    assert (nearest(0.0) == torch.arange(20)).float().mean() < 0.25


def test_a_fixed_observation_of_the_training_set_is_what_the_exact_denoiser_draws():
    sampler = PosteriorSampler(
        DPMSolver(steps=100, order=3, final_denoise=True), CentreMask(), data(), observation=7, step_size=10.0
    )
    drawn = to_uint8(sampler.sample(EmpiricalDenoiser(data(), VP()), NoiseStream(range(30))))
    assert torch.equal(drawn, data().images()[[7] * 30])


@pytest.mark.parametrize("name", registry.names("operators"))
def test_posterior_sampling_does_not_wait_for_an_accelerator(name, tmp_path):
    """On the meta device: there gradients need no accelerator."""
    mask = Image.new("L", (4, 4), 255)
    mask.putpixel((1, 2), 0)
    mask.save(tmp_path / "mask.png")
    settings = {"MaskFile": {"path": str(tmp_path / "mask.png")}}.get(name, {})
    operator = registry.build("operators", name, **settings)
    data = Digits(resize=4, subset=8)
    check_device(PosteriorSampler(Euler(4), operator, data), VP(), "meta")
