"""GAN networks and losses: recorded answers of the public code, closed forms, and what they promise."""

import copy
import math

import pytest
import recorded_baselines as recorded
import torch

from repro.errors import UserError
from repro.networks import gan
from repro.networks.gan import LOSSES, ConvDiscriminator, ConvGenerator, ResidualDiscriminator, ResidualGenerator
from repro.networks.layers.spectral import SpectralConv2d, SpectralLinear
from repro.released.mimicry import layout as layout

CASES = {name: case for name, case in recorded.cases().items() if "class" in case["record"]}
OUT = recorded.outputs()


def build(name):
    case = CASES[name]
    settings = layout.settings(case["record"])
    network = getattr(gan, settings["name"])(**settings["args"]).double()
    network.load_state_dict(layout.state_dict(recorded.foreign(case["shapes"]), network))
    return network


def assert_equal(given, expected):
    assert given.shape == expected.shape
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-11 * expected.abs().max().item())


@pytest.mark.parametrize("name", [name for name in CASES if "Generator" in name])
def test_generators_answer_as_recorded(name):
    network, z = build(name), recorded.normal("z", recorded.BATCH, 5)
    with torch.no_grad():
        assert_equal(network.eval()(z), OUT[name])
        assert_equal(network.train()(z), OUT[f"{name}.train"])


@pytest.mark.parametrize("name", [name for name in CASES if "Discriminator" in name])
def test_discriminators_answer_as_recorded(name):
    network, x = build(name).train(), recorded.normal("x", recorded.BATCH, 3, 8, 8)
    with torch.no_grad():
        assert_equal(network(x), OUT[f"{name}.first"].squeeze(1))
        assert_equal(network(x), OUT[f"{name}.second"].squeeze(1))
        assert_equal(network.eval()(x), OUT[name].squeeze(1))


@pytest.mark.parametrize("name", CASES)
def test_files_that_do_not_fit_are_refused(name):
    network, foreign = build(name), recorded.foreign(CASES[name]["shapes"])
    first = next(iter(foreign))
    with pytest.raises(UserError, match="1 unexpected"):
        layout.state_dict(foreign | {"stray": foreign[first]}, network)
    del foreign[first]
    with pytest.raises(UserError, match=f"first missing '{first}'"):
        layout.state_dict(foreign, network)


def test_unknown_class_is_refused():
    with pytest.raises(UserError, match="did you mean 'SNGANGenerator32'"):
        layout.settings({"class": "SNGANGenerator33"})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("SNGANGenerator32", 4_276_739), ("SNGANDiscriminator32", 1_053_825), ("WGANGPDiscriminator32", 1_053_825)],
)
def test_published_sizes(name, parameters):
    settings = layout.settings({"class": name})
    with torch.device("meta"):
        network = getattr(gan, settings["name"])(**settings["args"])
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    "layer", [SpectralConv2d(3, 6, 3, padding=1), SpectralLinear(12, 5)], ids=["convolution", "linear"]
)
def test_power_iteration_finds_the_largest_singular_value(layer):
    layer = layer.double().train()
    for _ in range(2000):
        layer.normalised()
    exact = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
    torch.testing.assert_close(layer.sigma(), exact, rtol=1e-8, atol=0)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(layer.eval().normalised().flatten(1), ord=2), torch.ones_like(exact), rtol=1e-8, atol=0
    )


def test_spectral_layers_keep_u_and_v_in_evaluation_and_can_be_copied():
    layer = SpectralConv2d(2, 3, 3)
    x = torch.randn(1, 2, 5, 5)
    before = layer.u.clone(), layer.v.clone()
    layer.eval()(x)
    assert torch.equal(layer.u, before[0])
    assert torch.equal(layer.v, before[1])
    layer.train()(x)
    assert not torch.equal(layer.v, before[1])
    twin = copy.deepcopy(layer).eval()
    assert torch.equal(twin(x), layer.eval()(x))


def test_gradient_through_the_spectral_norm():
    """With u and v held, d(W / sigma) = dW / sigma - W (u' dW v) / sigma^2."""
    layer = SpectralLinear(4, 3, bias=False).double().eval()
    x, out = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    (layer(x) * out).sum().backward()
    with torch.no_grad():
        plain, sigma = out.T @ x, layer.sigma()
        inner = (plain * layer.weight).sum()
        expected = plain / sigma - inner * torch.outer(layer.u, layer.v) / sigma**2
    torch.testing.assert_close(layer.weight.grad, expected)


def test_two_forward_passes_before_one_backward():
    network = ResidualDiscriminator(8, 1, width=4)
    real, fake = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    LOSSES["hinge"].discriminator(network(real), network(fake)).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


GENERATORS = [
    lambda size, channels: ResidualGenerator(size, channels, latent=6, width=8),
    lambda size, channels: ConvGenerator(size, channels, latent=6, width=4),
]
DISCRIMINATORS = [
    lambda size, channels: ResidualDiscriminator(size, channels, width=8),
    lambda size, channels: ResidualDiscriminator(size, channels, width=8, spectral_norm=False, pooling="mean"),
    lambda size, channels: ConvDiscriminator(size, channels, width=4),
]


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3)])
@pytest.mark.parametrize("generator", GENERATORS, ids=["residual", "conv"])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS, ids=["sngan", "wgan", "conv"])
def test_every_parameter_learns_at_every_size(generator, discriminator, size, channels):
    generator, discriminator = generator(size, channels), discriminator(size, channels)
    images = generator(torch.randn(4, generator.latent))
    assert images.shape == (4, channels, size, size)
    assert images.abs().max() <= 1
    logits = discriminator(images)
    assert logits.shape == (4,)
    LOSSES["nonsaturating"].generator(logits).backward()
    for module in (generator, discriminator):
        for name, parameter in module.named_parameters():
            assert parameter.grad.isfinite().all(), name
            if name.endswith("weight"):
                assert parameter.grad.any(), name


def test_gradient_penalty_of_a_quadratic():
    """D(x) = a |x|^2 / 2 has slope a |x| at the mixed point."""
    real, fake = torch.randn(5, 2, 3, 3, dtype=torch.float64), torch.randn(5, 2, 3, 3, dtype=torch.float64)
    mix = torch.rand(5, dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    penalty = gan.gradient_penalty(lambda x: scale * x.square().sum((1, 2, 3)) / 2, real, fake, mix, 3.0)
    lengths = torch.stack([(m * r + (1 - m) * f).norm() for m, r, f in zip(mix, real, fake, strict=True)])
    torch.testing.assert_close(penalty, 3 * (scale * lengths - 1).square().mean())
    (slope,) = torch.autograd.grad(penalty, scale)
    torch.testing.assert_close(slope, 6 * ((0.7 * lengths - 1) * lengths).mean())


def test_losses_written_out():
    real, fake = torch.tensor([2.0, -0.5]), torch.tensor([-3.0, 0.25])
    values = {
        "hinge": ((0 + 1.5) / 2 + (0 + 1.25) / 2, (3 - 0.25) / 2),
        "wasserstein": ((-3 + 0.25) / 2 - (2 - 0.5) / 2, (3 - 0.25) / 2),
        "nonsaturating": (
            -(math.log(sigmoid(2)) + math.log(sigmoid(-0.5)) + math.log(sigmoid(3)) + math.log(sigmoid(-0.25))) / 2,
            -(math.log(sigmoid(-3)) + math.log(sigmoid(0.25))) / 2,
        ),
    }
    assert LOSSES.keys() == values.keys()
    for name, (discriminator, generator) in values.items():
        assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(discriminator)
        assert LOSSES[name].generator(fake).item() == pytest.approx(generator)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResidualGenerator(9, 1), "image_size 9 is not 9 times a power of two"),
        (lambda: ResidualGenerator(32, 1, bottom=6), "image_size 32 is not 6 times"),
        (lambda: ResidualGenerator(32, 1, bottom=0), "image_size 32 is not 0 times"),
        (lambda: ConvGenerator(4, 1), "image_size 4 is not 4 times"),
        (lambda: ResidualGenerator(16, 1, width=[8, 8]), "must be one number or 3 numbers"),
        (lambda: ResidualGenerator(16, 1, squash="tan"), "did you mean 'tanh'"),
        (lambda: ResidualDiscriminator(16, 1, pooling="max"), "unknown pooling"),
        (lambda: ResidualDiscriminator(16, 1, halves=[False, True]), "begin with true"),
        (lambda: ResidualDiscriminator(12, 1, halves=[True] * 3), "cannot be halved 3 times"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()
