"""The MLP: what it promises, and that it learns the empirical optimum of a small set."""

import pytest
import torch

from repro.denoisers import EmpiricalDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import EDM
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning


def train(network, images, labels=None, steps=1000):
    """EDM training; returns the denoiser."""
    denoiser = NetworkDenoiser(network, EDM(), EDMPreconditioning())
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        rows = torch.randint(len(images), (64,), generator=generator)
        sigma = (4 * torch.rand(64, generator=generator) - 2).exp()
        scale = sigma.view(-1, 1, 1, 1)
        noisy = images[rows] + scale * torch.randn(images[rows].shape, generator=generator)
        weight = (scale**2 + 0.25) / (0.5 * scale) ** 2
        clean = denoiser.denoise(noisy, sigma, None if labels is None else labels[rows])
        loss = (weight * (clean - images[rows]).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser


def images_of(count):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)).round() * 2 - 1


def test_learns_the_empirical_optimum():
    torch.manual_seed(0)
    images = images_of(4)
    trained = train(MLP(4, 1, width=64), images)
    best = EmpiricalDenoiser(images, EDM())
    for sigma in (0.3, 1.0, 3.0):
        time = torch.tensor(sigma)
        noisy = images.repeat(64, 1, 1, 1) + sigma * torch.randn(
            256, 1, 4, 4, generator=torch.Generator().manual_seed(2)
        )
        with torch.no_grad():
            error = (trained.denoise(noisy, time) - best.denoise(noisy, time)).square().mean().sqrt()
        assert error < 0.1, (sigma, error)


def test_learns_what_labels_say():
    torch.manual_seed(0)
    images, labels = images_of(4), torch.arange(4)
    trained = train(MLP(4, 1, num_classes=4, width=64), images, labels)
    with torch.no_grad():
        clean = trained.denoise(10 * torch.randn(4, 1, 4, 4), torch.tensor(10.0), labels)
    assert (clean - images).square().mean().sqrt() < 0.15


def test_fresh_network_answers_zero():
    x = torch.randn(3, 2, 5, 5)
    assert not MLP(5, 2)(x, torch.tensor([0.1, 1.0, 100.0])).any()


def test_missing_label_is_the_null_class_and_dropout_uses_it():
    network = MLP(4, 1, num_classes=3, width=16, label_dropout=1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    x, level = torch.randn(3, 1, 4, 4), torch.zeros(3)
    labels, null = torch.tensor([0, 1, 2]), torch.full((3,), 3)
    assert torch.equal(network.eval()(x, level), network(x, level, null))
    assert not torch.allclose(network(x, level, labels), network(x, level, null))
    assert torch.equal(network.train()(x, level, labels), network(x, level, null))


@pytest.mark.parametrize("option", ["width", "depth", "expansion"])
def test_sizes_below_one_are_refused(option):
    with pytest.raises(UserError, match=f"{option} of MLP is 0; give at least 1"):
        MLP(4, 1, **{option: 0})
