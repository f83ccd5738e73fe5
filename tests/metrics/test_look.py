"""Habits of torchmetrics: images with a descriptor, floats with normalize, collections, trackers, plots."""

import matplotlib
import pytest
import torch
from torchmetrics import MetricCollection, MetricTracker

from repro import registry
from repro.descriptors import Pixels, SmallSSCD
from repro.errors import UserError
from repro.metrics import (
    BetweenReproducibilityScore,
    ConditionalReproducibilityScore,
    FrechetDistance,
    GeneralizationScore,
    KernelDistance,
    MAEScore,
    ReproducibilityCurve,
    ReproducibilityMatrix,
    ReproducibilityScore,
)
from repro.metrics.base import CountMetric
from repro.metrics.distances import SetMetric

matplotlib.use("Agg")
N = 24


def pictures(seed=0, n=N):
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


A = pictures()
B = torch.where(torch.arange(N).view(-1, 1, 1, 1) % 3 == 0, A, pictures(1))
CALLS = {
    "ReproducibilityScore": (ReproducibilityScore, {"threshold": 0.3}, (A, B)),
    "MAEScore": (MAEScore, {}, (A, B)),
    "GeneralizationScore": (GeneralizationScore, {"train_features": B, "threshold": 0.3}, (A,)),
    "ReproducibilityCurve": (ReproducibilityCurve, {}, (A, B)),
    "ReproducibilityMatrix": (ReproducibilityMatrix, {"systems": 2, "threshold": 0.3}, ([A, B],)),
    "ConditionalReproducibilityScore": (
        ConditionalReproducibilityScore,
        {"num_classes": 2, "threshold": 0.3},
        (A, B, torch.arange(N) % 2),
    ),
    "BetweenReproducibilityScore": (
        BetweenReproducibilityScore,
        {"threshold": 0.3},
        (A, torch.stack([B, pictures(2)], 1)),
    ),
    "FrechetDistance": (FrechetDistance, {}, (A, B)),
    "KernelDistance": (KernelDistance, {"subset_size": 10}, (A, B)),
}
NEED_WEIGHTS = {"FID", "KID"}
OF_NOISES = {"EncodingReproducibilityScore"}
OF_MODELS = {"BitsPerDimension"}


def floats(given):
    if isinstance(given, list):
        return [floats(item) for item in given]
    return given / 255 if given.dtype == torch.uint8 else given


def described(given, descriptor):
    if isinstance(given, list):
        return [described(item, descriptor) for item in given]
    if given.dtype != torch.uint8:
        return given
    if given.ndim == 5:
        return described(given.flatten(0, 1), descriptor).unflatten(0, given.shape[:2])
    return descriptor(given)


def test_every_registered_metric_is_here():
    assert {entry.name for entry in registry.entries("metrics") if entry.package == "repro"} == {
        *CALLS
    } | NEED_WEIGHTS | OF_NOISES | OF_MODELS


@pytest.mark.parametrize("name", CALLS)
def test_float_images_in_the_unit_interval(name):
    kind, options, given = CALLS[name]
    plain, normalized = kind(**options), kind(**options, normalize=True)
    plain.update(*given)
    normalized.update(*(floats(item) for item in given))
    assert torch.equal(plain.compute(), normalized.compute())
    outside = [item * 2 if torch.is_tensor(item) and item.ndim >= 4 else item for item in map(floats, given)]
    if name != "ReproducibilityMatrix":
        with pytest.raises(UserError, match="with normalize=True give floats in"):
            normalized.update(*outside)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "MAEScore"])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_descriptor_describes_images(name, by_name):
    kind, options, given = CALLS[name]
    descriptor = SmallSSCD("digits")
    plain = kind(
        **{key: described(value, descriptor) if key == "train_features" else value for key, value in options.items()}
    )
    looking = kind(**options, descriptor="SmallSSCD" if by_name else descriptor)
    plain.update(*(described(item, descriptor) for item in given))
    if by_name:  # its default weights are for photographs of 32 x 32: only that it is built is looked at
        assert type(looking.look.descriptor) is SmallSSCD
        return
    looking.update(*given)
    assert torch.equal(plain.compute(), looking.compute())
    assert looking.clone().look is looking.look
    assert not list(looking.parameters())
    assert set(looking.state_dict()) == set()


@pytest.mark.parametrize("name", CALLS)
def test_every_metric_plots(name):
    from matplotlib import pyplot

    kind, options, given = CALLS[name]
    metric = kind(**options)
    metric.update(*given)
    _, axes = metric.plot()
    assert axes.has_data()
    _, same = metric.plot(ax=axes)
    assert same is axes
    if kind not in (ReproducibilityCurve, ReproducibilityMatrix):
        _, steps = metric.plot([metric.compute(), metric.compute() / 2])
        (line,) = steps.lines[:1]
        assert [float(y) for y in line.get_ydata()] == [float(metric.compute()), float(metric.compute()) / 2]
    pyplot.close("all")


def test_a_matrix_and_a_curve_are_drawn_as_they_are():
    from matplotlib import pyplot

    matrix, curve = ReproducibilityMatrix(2, 0.3), ReproducibilityCurve([0.1, 0.5])
    matrix.update([A, B])
    curve.update(A, B)
    _, axes = matrix.plot()
    assert [text.get_text() for text in axes.texts] == [f"{rate:.2f}" for rate in matrix.compute().flatten().tolist()]
    _, axes = curve.plot()
    assert list(axes.lines[0].get_ydata()) == curve.compute().tolist()
    pyplot.close("all")


def test_a_collection_does_not_take_two_scores_for_one():
    """Both scores count the same of the first batch, another number of the second."""
    scores = MetricCollection({"rp": ReproducibilityScore(0.99), "low": ReproducibilityScore(-1.0), "mae": MAEScore()})
    for a, b in ((A, A), (A, B)):
        scores.update(a, b)
    alone = {"rp": ReproducibilityScore(0.99), "low": ReproducibilityScore(-1.0), "mae": MAEScore()}
    for metric in alone.values():
        metric.update(A, A)
        metric.update(A, B)
    assert {name: float(value) for name, value in scores.compute().items()} == {
        name: float(metric.compute()) for name, metric in alone.items()
    }
    assert float(scores.compute()["low"]) == 1.0 > float(scores.compute()["rp"])
    cloned = scores.clone(prefix="test/")
    assert set(cloned.compute()) == {"test/rp", "test/low", "test/mae"}


@pytest.mark.parametrize(("metric", "best"), [(ReproducibilityScore(0.3), 1.0), (FrechetDistance(), 0.0)])
def test_a_tracker_knows_what_is_better(metric, best):
    tracker = MetricTracker(metric)
    for other in (B, A, pictures(5)):
        tracker.increment()
        tracker.update(A, other)
    value, step = tracker.best_metric(return_step=True)
    assert (float(value), step) == (pytest.approx(best, abs=1e-9), 1)
    assert len(tracker.compute_all()) == 3


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance])
def test_real_images_are_the_second_set(kind):
    options = {"subset_size": 10} if kind is KernelDistance else {}
    plain, named, positional = kind(**options), kind(**options), kind(**options)
    plain.update(A, B)
    named.update(B, real=True)
    named.update(A, real=False)
    positional.update(A, False)
    positional.update(B, True)
    assert plain.compute() == named.compute() == positional.compute()
    with pytest.raises(UserError, match="give one set with real=True"):
        named.update(A, B, real=True)


def test_every_class_says_what_is_better():
    for name, (kind, _, _) in CALLS.items():
        assert kind.higher_is_better is issubclass(kind, CountMetric), name
        assert issubclass(kind, CountMetric | SetMetric)


def test_descriptors_are_callable():
    assert torch.equal(Pixels()(A), Pixels().features(A))
