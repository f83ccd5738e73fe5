"""Distances of sets against scipy and torchmetrics in float64, and that no network becomes part of a model."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from repro import registry
from repro.errors import UserError
from repro.metrics import FID, KID, FrechetDistance, KernelDistance, SetMetric, functional
from repro.metrics.inception import Inception
from repro.testing import metrics as laws


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sets(n, m, size):
    mixing = gaussian(size, size, seed=7) + 2 * torch.eye(size, dtype=torch.float64)
    return gaussian(n, size, seed=1), gaussian(m, size, seed=2) @ mixing + 0.3


def slow_frechet(a, b):
    a, b = a.numpy(), b.numpy()
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root)


@pytest.mark.parametrize(("n", "m", "size"), [(200, 150, 1), (200, 300, 8), (500, 400, 40)])
def test_frechet_equals_scipy(n, m, size):
    a, b = sets(n, m, size)
    assert functional.frechet_distance(a, b) == pytest.approx(slow_frechet(a, b), rel=1e-8)
    assert functional.frechet_distance(b, a) == pytest.approx(functional.frechet_distance(a, b), rel=1e-12)
    assert functional.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_frechet_of_fewer_samples_than_features():
    """Samples on two orthogonal axes: covariances commute, the distance is that of one-dimensional Gaussians."""
    a, b = torch.zeros(2, 5, 100, dtype=torch.float64)
    a[:, 3], b[:, 3] = torch.arange(5) * 2.0, torch.arange(5) * 5.0 + 1
    b[:, 70] = torch.tensor([1.0, -1, 0, 2, -2])
    spread = [x[:, 3].std() for x in (a, b)]
    expected = (a[:, 3].mean() - b[:, 3].mean()) ** 2 + spread[0] ** 2 + b.var(0).sum()
    root = torch.cov(b.T)[3, 3].sqrt() * spread[0]
    assert functional.frechet_distance(a, b) == pytest.approx(float(expected - 2 * root), rel=1e-12)


class _Flat(nn.Module):
    num_features = 27

    def forward(self, images):
        return images.flatten(1).double()


def images(n, seed):
    return torch.randint(0, 256, (n, 3, 3, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_frechet_equals_torchmetrics():
    other = FrechetInceptionDistance(feature=_Flat(), input_img_size=(3, 3, 3))
    a, b = images(90, 1), images(110, 2) // 2
    other.update(a, real=False)
    other.update(b, real=True)
    found = functional.frechet_distance(a.flatten(1).double(), b.flatten(1).double())
    assert found == pytest.approx(float(other.compute()), rel=1e-8)


def slow_kernel_distance(a, b):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within = [
        sum(kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j) / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    return sum(within) - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_equals_a_slow_loop():
    a, b = sets(30, 30, 5)
    assert functional.kernel_distance(a, b) == pytest.approx(slow_kernel_distance(a, b), rel=1e-9)


def test_kernel_distance_of_subsets_is_numbered_and_near_the_whole():
    a, b = sets(300, 260, 5)
    whole = functional.kernel_distance(a[:260], b, subset_size=260)
    parts = [functional.kernel_distance(a, b, 200, 50, seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert parts == pytest.approx([whole] * 3, rel=0.1)


SETS = [name for name in registry.names("metrics") if issubclass(registry.load("metrics", name), SetMetric)]


@pytest.mark.parametrize("name", [name for name in SETS if registry.load("metrics", name).inputs == "features"])
def test_set_metric_laws(name):
    laws.check_set_metric(registry.build("metrics", name), tuple(x.float() for x in sets(40, 40, 6)))


@pytest.mark.parametrize("name", ["FID", "KID"])
def test_inception_on_an_accelerator_does_not_wait(name, monkeypatch):
    monkeypatch.setattr(Inception, "check", lambda self: None)
    monkeypatch.setattr(Inception, "_build", lambda self: _Flat())
    laws.check_device(registry.build("metrics", name), (images(9, 1), images(9, 2)), waits=0)


def test_the_label_names_the_descriptor():
    assert FrechetDistance().label("SSCD") == "FrechetDistance[SSCD]"
    assert KernelDistance().label("Pixels") == "KernelDistance[Pixels]"


def test_sets_of_different_sizes():
    a, b = sets(50, 70, 4)
    metric = FrechetDistance()
    metric.update(a[:20])
    metric.update(a[20:], b[:7])
    metric.update(b=b[7:], seeds=range(63))
    assert float(metric.compute()) == pytest.approx(functional.frechet_distance(a, b), rel=1e-12)


class _Tiny(nn.Module):
    """Stands in for Inception: batch norm, so that train mode would show."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1))
        self.modes = []

    def forward(self, given):
        assert given.dtype == torch.uint8
        self.modes.append(self.training)
        return self.layers(given.double())


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    network = _Tiny().double().eval().requires_grad_(False)
    monkeypatch.setattr(Inception, "check", lambda self: None)
    monkeypatch.setattr(Inception, "_build", lambda self: network)
    return network


@pytest.mark.parametrize("kind", [FID, KID])
def test_inception_is_no_part_of_metric_or_model(tiny, kind):
    model = nn.Module()
    model.score = kind()
    inputs = images(20, 1), images(20, 2) // 3
    model.train()
    model.score.update(*inputs)
    model.train()
    assert float(model.score.compute()) > 0
    assert not model.state_dict()
    assert not list(model.parameters())
    assert [type(module) for module in model.modules()] == [nn.Module, kind]
    assert tiny.modes
    assert not any(tiny.modes)
    assert len(pickle.dumps(model.score.inception)) < 500
    laws.check_set_metric(kind(), inputs)


def test_fid_is_the_frechet_distance_of_inception(tiny):
    a, b = images(30, 1), images(25, 2)
    metric = FID()
    metric.update(a, b)
    features = [tiny(x).flatten(1) for x in (a, b)]
    assert float(metric.compute()) == pytest.approx(functional.frechet_distance(*features), rel=1e-12)
    grey = FID()
    grey.update(a[:, :1], b[:, :1])
    spread = [tiny(x[:, :1].repeat(1, 3, 1, 1)).flatten(1) for x in (a, b)]
    assert float(grey.compute()) == pytest.approx(functional.frechet_distance(*spread), rel=1e-12)
    assert copy.deepcopy(metric).inception._network is tiny


def test_without_inception_fid_says_what_to_do(monkeypatch, tmp_path):
    import torchmetrics.utilities.imports as found

    monkeypatch.setattr(found, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match=r"pip install torch-fidelity; without it, FrechetDistance"):
        FID()
    monkeypatch.setattr(found, "_TORCH_FIDELITY_AVAILABLE", True)
    with pytest.raises(UserError, match=r"no Inception weights at .*none\.pth; put the file from https://github"):
        KID(str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: functional.frechet_distance(x, x[:1]), "at least 2 samples"),
        (lambda x: functional.kernel_distance(x[:1], x), "at least 2 samples"),
        (lambda x: functional.frechet_distance(x, x[:, :2]), "one descriptor"),
        (lambda x: functional.frechet_distance(x, x / 0), "not finite"),
        (lambda x: functional.kernel_distance(x, x, 0), "0 subsets"),
        (lambda x: KernelDistance(3, 1), "3 subsets of 1"),
        (lambda x: FrechetDistance().compute(), "no sample of the first set"),
        (lambda x: FrechetDistance().update(x, seeds=[1]), "one seed a sample"),
        (lambda x: FrechetDistance().update(x, seeds=[-1, 0, 1, 2]), "negative"),
    ],
)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_bad_input_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call(gaussian(4, 3))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
