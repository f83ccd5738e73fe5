"""The classes: same counts as the functions, under every split, copy and number of processes."""

import pytest
import torch
from torch import nn

from repro import registry
from repro.denoisers import NetworkDenoiser
from repro.errors import UserError
from repro.kernels import EDM
from repro.metrics import (
    BetweenReproducibilityScore,
    ConditionalReproducibilityScore,
    FrechetDistance,
    GeneralizationScore,
    KernelDistance,
    MAEScore,
    PairMetric,
    ReproducibilityCurve,
    ReproducibilityMatrix,
    ReproducibilityScore,
    functional,
)
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning
from repro.testing import metrics as laws
from repro.testing.devices import Waits

PAIRS = [name for name in registry.names("metrics") if issubclass(registry.load("metrics", name), PairMetric)]
RATE_LAWS = [laws.check_batches, laws.check_seeds, laws.check_conflict, laws.check_lifecycle]


def samples_and_train():
    train = torch.randn(90, 16, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(37, 16, generator=torch.Generator().manual_seed(6))
    return train[:37] + torch.linspace(0, 3, 37)[:, None] * noise, train


def generalization():
    samples, train = samples_and_train()
    return GeneralizationScore(train), (samples,)


@pytest.mark.parametrize("name", PAIRS)
def test_pair_metric_laws(name):
    laws.check_pair_metric(registry.build("metrics", name))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def conditional():
    a, b = laws.pair_inputs(ReproducibilityScore())
    return ConditionalReproducibilityScore(5), (a, b, torch.randint(0, 4, (37,), generator=generator(2)))


def between():
    cond = torch.randn(37, 3, 16, generator=generator(3))
    noise = torch.randn(37, 16, generator=generator(4))
    return BetweenReproducibilityScore(), (cond[:, 1] + torch.linspace(0, 2, 37)[:, None] * noise, cond)


def matrix():
    base, noise = torch.randn(37, 1, 16, generator=generator(5)), torch.randn(37, 4, 16, generator=generator(6))
    return ReproducibilityMatrix(4), (base + torch.linspace(0, 2, 37)[:, None, None] * noise,)


def curve():
    return ReproducibilityCurve([-0.5, 0.3, 0.6, 0.9]), laws.pair_inputs(ReproducibilityScore())


COUNTED = {"GL": generalization, "conditional": conditional, "between": between, "matrix": matrix, "curve": curve}


@pytest.mark.parametrize("law", RATE_LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", COUNTED)
def test_laws_of_counts(name, law):
    metric, inputs = COUNTED[name]()
    law(metric, inputs)


def test_one_seed_counts_once_for_each_class():
    metric = ConditionalReproducibilityScore(2)
    for _ in range(2):
        metric.update(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]], [0, 1, 0, 1], seeds=[7, 7, 8, 8])
    assert [counts.tolist() for counts in metric.counts()] == [[1, 1], [2, 2]]
    assert metric.per_class().tolist() == [0.5, 0.5]


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.95])
def test_classes_equal_functions(threshold):
    a, b = laws.pair_inputs(ReproducibilityScore())
    metric = ReproducibilityScore(threshold)
    metric.update(a, b)
    assert float(metric.compute()) == functional.reproducibility_score(a, b, threshold)
    samples, train = samples_and_train()
    metric = GeneralizationScore(train, threshold)
    metric.update(samples)
    assert float(metric.compute()) == functional.generalization_score(samples, train, threshold)
    metric, (a, b, labels) = ConditionalReproducibilityScore(5, threshold), conditional()[1]
    metric.update(a, b, labels)
    per_class, mean = functional.conditional_reproducibility_score(a, b, labels, 5, threshold)
    torch.testing.assert_close(metric.per_class(), per_class, rtol=0, atol=0, equal_nan=True)
    assert float(metric.compute()) == mean
    assert per_class.isnan().tolist() == [False] * 4 + [True]
    metric, inputs = BetweenReproducibilityScore(threshold), between()[1]
    metric.update(*inputs)
    assert float(metric.compute()) == functional.between_reproducibility_score(*inputs, threshold)
    metric, inputs = ReproducibilityMatrix(4, threshold), matrix()[1]
    metric.update(*inputs)
    assert torch.equal(metric.compute(), functional.reproducibility_matrix(*inputs, threshold))
    metric = ReproducibilityCurve([threshold, 0.5])
    metric.update(a, b)
    assert torch.equal(metric.compute(), functional.reproducibility_curve(a, b, [threshold, 0.5]))
    images = laws.pair_inputs(MAEScore())
    metric = MAEScore(100 * threshold)
    metric.update(*images)
    assert float(metric.compute()) == functional.mae_score(*images, 100 * threshold)
    assert metric.interval() == functional.wilson_interval(*metric.counts())


def cases():
    metrics = {name: registry.build("metrics", name) for name in PAIRS}
    found = {name: (metric, laws.pair_inputs(metric)) for name, metric in metrics.items()}
    found |= {name: make() for name, make in COUNTED.items()}
    sets = laws.pair_inputs(ReproducibilityScore())
    return found | {"Frechet": (FrechetDistance(), sets), "kernel": (KernelDistance(), sets)}


# An update looks whether features are finite, once for each set; the search of a training set and the
# counts of classes ask the device more often.
WAITS = {"MAEScore": 0, "GL": None, "conditional": None}


@pytest.mark.parametrize("name", cases())
def test_an_update_on_an_accelerator_waits_as_often_as_stated(name):
    metric, inputs = cases()[name]
    waits = WAITS.get(name, 1 if name == "matrix" else 2)
    laws.check_device(metric, inputs, waits)


def test_likelihoods_on_an_accelerator_wait_a_few_times_however_long_the_walk():
    """On the meta device: there gradients need no accelerator."""
    for steps in (2, 5):
        network = MLP(4, 1, width=8, depth=1).eval().requires_grad_(False).to("meta")
        metric = registry.build("metrics", "BitsPerDimension", steps=steps).to("meta")
        denoiser = NetworkDenoiser(network, EDM(), EDMPreconditioning())
        pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8, device="meta")
        with Waits() as waits:
            metric.update(denoiser, pixels)
        assert sum(waits.counted.values()) == 3, waits.counted
        assert metric.rows[0].is_meta


def test_every_metric_was_on_an_accelerator():
    elsewhere = {"FID", "KID", "BitsPerDimension"}  # the first two in test_distances.py
    assert {type(metric).__name__ for metric, _ in cases().values()} | elsewhere == set(registry.names("metrics"))


class _LooksAtMatches(ReproducibilityScore):
    def match(self, a, b):
        matches = super().match(a, b)
        return matches if matches.any() else ~matches


class _WeighsOnTheHost(ReproducibilityScore):
    def match(self, a, b):
        return super().match(a * torch.ones(a.shape[1]), b)


def test_the_law_of_devices_notices():
    inputs = laws.pair_inputs(ReproducibilityScore())
    with pytest.raises(AssertionError, match=r"2 times are stated: {'item\(\)"):
        laws.check_device(_LooksAtMatches(), inputs, 2)
    with pytest.raises(AssertionError, match="left on the CPU"):
        laws.check_device(_WeighsOnTheHost(), inputs, 2)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_count_the_same(world_size):
    laws.check_processes(cases(), world_size)


def test_the_law_of_processes_notices_a_metric_that_counts_copies_twice():
    metric = _CountsCopies()
    with pytest.raises(AssertionError, match="copies, padded"):
        laws.check_processes({"copies": (metric, laws.pair_inputs(metric))}, 2)


class _CountsCopies(ReproducibilityScore):
    def update(self, a, b, seeds=None):
        super().update(a, b, None)


def test_a_metric_inside_a_module_adds_nothing_to_it():
    module = nn.Module()
    module.score, _ = generalization()
    assert not list(module.parameters())
    assert not module.state_dict()


def test_numbered_and_unnumbered_samples_add_up():
    metric = ReproducibilityScore()
    metric.update(torch.eye(3), torch.eye(3), seeds=[4, 5, 6])
    metric.update(torch.eye(3), -torch.eye(3))
    metric.update(torch.eye(3), torch.eye(3), seeds=torch.tensor([6, 7, 8]))
    assert metric.counts() == (5, 8)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: ReproducibilityScore(1.5), "[-1, 1]"),
        (lambda: GeneralizationScore(threshold=-2), "[-1, 1]"),
        (lambda: MAEScore(300), "[0, 255]"),
        (lambda: ReproducibilityScore().counts(), "update"),
        (lambda: ConditionalReproducibilityScore(), "num_classes"),
        (lambda: ConditionalReproducibilityScore(2).counts(), "update"),
        (lambda: ConditionalReproducibilityScore(2).update(torch.eye(2), torch.eye(2), [0, 2]), "label 2"),
        (lambda: BetweenReproducibilityScore(2), "[-1, 1]"),
        (lambda: BetweenReproducibilityScore().update(torch.eye(2), torch.eye(2)), "under every class"),
        (lambda: ReproducibilityMatrix(1), "at least 2"),
        (lambda: ReproducibilityMatrix(3).update([torch.eye(2)] * 2), "2 systems for a matrix of 3"),
        (lambda: ReproducibilityCurve([]), "no threshold"),
        (lambda: ReproducibilityCurve([0.5, 3]), "3.0 is outside"),
        (lambda: GeneralizationScore().update(torch.eye(2)), "train_features"),
        (lambda: ReproducibilityScore().update(torch.eye(2), torch.eye(2), seeds=[1]), "one seed a sample"),
    ],
)
def test_bad_use_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call()
    assert word in str(caught.value)
