"""The VAE: recorded answers of the public code, densities that integrate to one, and what it promises."""

import math

import pytest
import recorded_baselines as recorded
import torch

from repro.errors import UserError
from repro.networks.vae import VAE, log_bernoulli, log_logistic_bins, log_normal, to_pixels
from repro.released.vae_vampprior import layout as layout

CASES = {name: case for name, case in recorded.cases().items() if "input_size" in case["record"]}
OUT = recorded.outputs()


def build(name):
    case = CASES[name]
    network = VAE(**layout.settings(case["record"])["args"]).double()
    network.load_state_dict(layout.state_dict(recorded.foreign(case["shapes"]), network))
    return network


def small(**options):
    torch.manual_seed(0)
    return VAE(3, 1, latent=2, hidden=16, **options).double()


@pytest.mark.parametrize("name", CASES)
def test_answers_as_recorded(name):
    network = build(name)
    pixels = recorded.uniform("pixels", recorded.BATCH, 12)
    pixels = pixels.round() if network.likelihood == "bernoulli" else pixels
    far = 4 * recorded.normal("far", recorded.BATCH, 3)
    with torch.no_grad():
        reconstruction, divergence = network.terms(pixels, recorded.normal("eps", recorded.BATCH, 3))
        given = {
            "reconstruction": reconstruction,
            "divergence": divergence,
            "loss": -reconstruction + 0.7 * divergence,
            "log_prior": network.log_prior(far) + 3 * math.log(2 * math.pi) / 2,
            "mean": network.decode(far)[0],
        }
    for key, value in given.items():
        torch.testing.assert_close(value, OUT[f"{name}.{key}"], rtol=1e-11, atol=1e-11)


def test_standard_prior_reads_a_vampprior_file():
    case = CASES["vae_vampprior_binary"]
    network = VAE(**layout.settings(case["record"] | {"prior": "standard"})["args"])
    network.load_state_dict(layout.state_dict(recorded.foreign(case["shapes"]), network))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_type": "grey"}, "did you mean 'gray'"),
        ({"prior": "vamp"}, "did you mean 'vampprior'"),
        ({"input_size": [1, 2, 2]}, "lacks 'z1_size'"),
    ],
)
def test_records_that_are_not_understood_are_refused(record, message):
    with pytest.raises(UserError, match=message):
        layout.settings(record)


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_prior_integrates_to_one(prior):
    network = small(prior=prior, components=5, pseudo_mean=0.5, pseudo_std=2.0)
    line = torch.linspace(-40, 40, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = network.log_prior(grid).exp().sum() * 0.1**2
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_logistic_bins_share_out_the_probability():
    """The 256 bins of [0, 1] have together the mass that the logistic distribution has on [0, 1]."""
    mean, log_scale = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-1.5], dtype=torch.float64)
    values = torch.arange(256, dtype=torch.float64)[:, None] / 256 + 1e-4
    mass = log_logistic_bins(values, mean, log_scale, floor=0.0).exp().sum()
    low, high = ((edge - 0.3) / math.exp(-1.5) for edge in (0, 1))
    assert mass.item() == pytest.approx(1 / (1 + math.exp(-high)) - 1 / (1 + math.exp(-low)), abs=1e-12)


def test_densities_agree_with_the_library():
    x, mean, log_variance = torch.randn(3, 4, 2, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(log_normal(x, mean, log_variance), normal.log_prob(x).sum(-1))
    probability = torch.rand(4, 2, dtype=torch.float64)
    bits = torch.rand(4, 2, dtype=torch.float64).round()
    expected = torch.distributions.Bernoulli(probability).log_prob(bits).sum(-1)
    torch.testing.assert_close(log_bernoulli(bits, probability), expected)


def test_divergence_averages_to_its_closed_form():
    """For the standard prior: KL = sum of (var + mean^2 - 1 - log var) / 2."""
    network = small()
    pixels = torch.rand(1, 9, dtype=torch.float64)
    eps = torch.randn(200_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, log_variance = network.posterior(pixels)
        exact = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum().item()
        drawn = network.terms(pixels.expand(len(eps), -1), eps)[1]
    assert drawn.mean().item() == pytest.approx(exact, abs=5 * drawn.std().item() / math.sqrt(len(eps)))


def test_draws_from_the_vampprior_follow_its_density():
    """First and second moments of drawn latents equal those of the equally weighted mixture."""
    network = small(prior="vamp", components=3, pseudo_mean=0.5, pseudo_std=3.0)
    noise = torch.randn(200_000, network.noise_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = network.latent_of(noise)
        means, log_variances = network.posterior(network.pseudo_inputs())
    expected = (log_variances.exp() + means.square()).mean(0)
    torch.testing.assert_close(drawn.square().mean(0), expected, rtol=0.02, atol=0)
    torch.testing.assert_close(drawn.mean(0), means.mean(0), rtol=0, atol=0.02 * expected.max().sqrt().item())


def test_image_of_a_noise_depends_on_nothing_else():
    network = small(prior="vamp", components=7)
    noise = torch.randn(6, network.noise_size, dtype=torch.float64)
    with torch.no_grad():
        images = network(noise)
        assert images.shape == (6, 1, 3, 3)
        assert images.abs().max() <= 1
        torch.testing.assert_close(network(noise[4:5]), images[4:5])


def test_learns_two_images():
    """A VampPrior needs log 2 nats to tell two images apart (when its components halve), a standard one 1.4."""
    torch.manual_seed(0)
    network = VAE(4, 1, latent=2, hidden=32, likelihood="bernoulli", prior="vamp", components=4)
    images = torch.stack([torch.eye(4), 1 - torch.eye(4)])[:, None] * 2 - 1
    pixels = to_pixels(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(600):
        reconstruction, divergence = network.terms(pixels.repeat(16, 1), torch.randn(32, 2))
        loss = (divergence - reconstruction).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert math.log(2) - 0.05 < sum(losses[-100:]) / 100 < math.log(2) + 0.25
    with torch.no_grad():
        drawn = network(torch.randn(64, network.noise_size))
    errors, nearest = (drawn[:, None] - images[None]).square().mean((2, 3, 4)).min(1)
    assert errors.max() < 0.05
    assert set(nearest.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "vampp"}, "did you mean 'vamp'"),
        ({"likelihood": "normal"}, "unknown likelihood of VAE"),
        ({"components": 0}, "components of VAE is 0"),
        ({"latent": 0}, "latent of VAE is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        VAE(**{"image_size": 4, "channels": 1, "hidden": 4, **options})
