"""Classifier-free guidance: its closed form, which models take it, and label dropout."""

from __future__ import annotations

import math

import pytest
import torch

from repro.denoisers import Denoiser, EmpiricalDenoiser, GaussianDenoiser, GuidedDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VP
from repro.models.denoising import DenoisingModel
from repro.models.exact import Exact
from repro.noise import NoiseStream, draw_noise
from repro.parameterizations import EDMPreconditioning
from repro.records import rebuild, record_of
from repro.registry import build, names
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.heun import Heun
from repro.testing.denoisers import check_denoiser

SHAPE, CLASSES, SPREAD = (1, 2, 2), 3, 0.5
MEANS = torch.tensor([-0.6, 0.1, 0.7], dtype=torch.float64)


class Gaussians(Denoiser):
    """Class c is normal around its mean with one spread; without a label, around 0 with the spread of 1."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel, self.image_shape, self.num_classes = kernel, SHAPE, CLASSES
        self.calls = 0

    def denoise(self, x_t, t, labels=None):
        self.calls += 1
        alpha, sigma = self.scales(x_t, t)
        mean = 0.0 if labels is None else MEANS[labels].to(x_t.dtype).view(-1, 1, 1, 1)
        variance = 1.0 if labels is None else SPREAD**2
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("kernel", [EDM(), VP()], ids=["EDM", "VP"])
def test_the_score_is_that_of_the_sharpened_density(kernel, scale):
    """The score is that of p(x)^(1 - w) p(x | c)^w, by automatic differentiation of the two log densities."""
    inner = Gaussians(kernel)
    guided, labels = GuidedDenoiser(inner, scale), torch.tensor([0, 2, 1])
    x_t = draw_noise(range(3), SHAPE).double().requires_grad_()
    t = torch.tensor(0.3 * kernel.t_max, dtype=torch.float64)
    alpha, sigma = inner.scales(x_t, t)

    def log_density(mean, variance):
        return -((x_t - alpha * mean) ** 2).sum() / (2 * (alpha**2 * variance + sigma**2))

    log_p = (1 - scale) * log_density(0.0, 1.0) + scale * log_density(MEANS[labels].view(-1, 1, 1, 1), SPREAD**2)
    (right,) = torch.autograd.grad(log_p, x_t)
    torch.testing.assert_close(guided.score(x_t.detach(), t, labels), right, rtol=1e-11, atol=1e-12)
    assert inner.calls == 2
    assert torch.equal(guided.denoise(x_t, t), inner.denoise(x_t, t))


def test_samples_with_equal_spreads_have_a_closed_form():
    """With the spread of every class that of all images, guidance only moves the mean: to w times the class's."""

    class Equal(Gaussians):
        def denoise(self, x_t, t, labels=None):
            mean = 0.0 if labels is None else MEANS[labels].view(-1, 1, 1, 1)
            return mean + (x_t - mean) / (1 + self.kernel.ratio(t) ** 2)

    kernel, scale, labels = EDM(), 2.5, torch.tensor([0, 1, 2, 2])
    images = DPMSolver(steps=150).sample(GuidedDenoiser(Equal(kernel), scale), NoiseStream(range(4)), labels)
    x_t = kernel.prior_scale * draw_noise(range(4), SHAPE).double()
    mean = scale * MEANS[labels].view(-1, 1, 1, 1)
    right = mean + (x_t - mean) * math.sqrt((1 + kernel.t_min**2) / (1 + kernel.t_max**2))
    torch.testing.assert_close(images, right, rtol=0, atol=2e-4)


def test_it_is_a_denoiser_like_any_other_and_rebuilds():
    check_denoiser(GuidedDenoiser(Gaussians(VP()), 2.0), torch.tensor([0, 1, 2, 0, 1]))
    assert "GuidedDenoiser" in names("denoisers")
    network = build("networks", "MLP", image_size=2, channels=1, num_classes=3, null_class=True, width=8)
    guided = GuidedDenoiser(NetworkDenoiser(network, EDM(), EDMPreconditioning()), 3.0)
    again = rebuild(record_of(guided))
    assert (again.scale, again.num_classes, again.image_shape) == (3.0, 3, SHAPE)


def test_guidance_of_a_model():
    images = torch.randn(30, *SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    labels = torch.arange(30) % 3
    model = Exact(EmpiricalDenoiser(images, EDM(), labels=labels), Heun(steps=12))
    wanted = torch.tensor([0, 1, 2, 1])
    plain, free = model.generate(NoiseStream(range(4)), wanted), model.generate(NoiseStream(range(4)))
    for scale, right in ((1.0, plain), (0.0, free)):
        assert torch.equal(model.generate(NoiseStream(range(4)), wanted, guidance=scale), right)
    strong = model.generate(NoiseStream(range(4)), wanted, guidance=3.0)
    right = Heun(steps=12).sample(GuidedDenoiser(model.denoiser, 3.0), NoiseStream(range(4)), wanted)
    assert torch.equal(strong, right)
    assert not torch.equal(strong, plain)


def diffusion(**options):
    network = build("networks", "MLP", image_size=2, channels=1, width=8, **options)
    return DenoisingModel(network, EDM(), EDMPreconditioning(), Heun(steps=2))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_is_a_number_of_at_least_0(scale):
    with pytest.raises(UserError, match=r"guidance is .*; give a number of at least 0"):
        diffusion(num_classes=3, label_dropout=0.1).check_drawing(guidance=scale)


def test_models_that_cannot_be_guided_say_why():
    with pytest.raises(UserError, match="guidance is 2, but the model was trained without labels"):
        diffusion().check_drawing(guidance=2.0)
    with pytest.raises(UserError, match="has no null class, because it was trained without label dropout"):
        diffusion(num_classes=3).check_drawing(guidance=2.0)
    with pytest.raises(UserError, match="GANModel draws in one pass, which cannot be guided"):
        build("models", "GANModel", image_size=8, channels=1).check_drawing(guidance=2.0)
    with pytest.raises(UserError, match="this one has no classes"):
        GuidedDenoiser(GaussianDenoiser(EDM()), 2.0)
    for model in (diffusion(), diffusion(num_classes=3)):
        model.check_drawing(guidance=1.0)


@pytest.mark.parametrize("name", names("networks"))
def test_label_dropout_needs_classes_and_makes_a_null_class(name):
    sizes = {"image_size": 8, "channels": 1, "width": 16}
    sizes |= {"depth": 2} if name in ("UViT", "DiT", "MLP") else {"num_blocks": 1, "channel_mult": [1, 1]}
    sizes |= {"channels_per_head": 16} if name == "ADM" else {}
    sizes |= {"heads": 2} if name in ("UViT", "DiT") else {}
    sizes |= {"decoder_widths": 16} if name == "MultistageUNet" else {}
    with pytest.raises(UserError, match=f"label_dropout is 0.1, but {name} has no classes; leave it out"):
        build("networks", name, **sizes, label_dropout=0.1)
    with pytest.raises(UserError, match=r"label_dropout is 1\.2; give a probability from 0 to 1"):
        build("networks", name, **sizes, num_classes=4, label_dropout=1.2)
    assert not build("networks", name, **sizes).has_null_class
    assert not build("networks", name, **sizes, num_classes=4).has_null_class
    network = build("networks", name, **sizes, num_classes=4, label_dropout=0.1).eval()
    assert network.has_null_class
    x, level = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 0.5])
    with torch.no_grad():
        assert torch.equal(network(x, level), network(x, level, torch.tensor([4, 4])))
