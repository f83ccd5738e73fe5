"""The classes: same counts as the functions, under every split, copy and number of processes."""

import pytest
import torch
from torch import nn

from repro import registry
from repro.errors import UserError
from repro.metrics import GeneralizationScore, MAEScore, PairMetric, ReproducibilityScore, functional
from repro.testing import metrics as laws

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


@pytest.mark.parametrize("law", RATE_LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
def test_generalization_laws(law):
    metric, inputs = generalization()
    law(metric, inputs)


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
    images = laws.pair_inputs(MAEScore())
    metric = MAEScore(100 * threshold)
    metric.update(*images)
    assert float(metric.compute()) == functional.mae_score(*images, 100 * threshold)
    assert metric.interval() == functional.wilson_interval(*metric.counts())


def cases():
    metrics = {name: registry.build("metrics", name) for name in PAIRS}
    return {name: (metric, laws.pair_inputs(metric)) for name, metric in metrics.items()} | {"GL": generalization()}


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
        (lambda: GeneralizationScore().update(torch.eye(2)), "train_features"),
        (lambda: ReproducibilityScore().update(torch.eye(2), torch.eye(2), seeds=[1]), "one seed a sample"),
    ],
)
def test_bad_use_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call()
    assert word in str(caught.value)
