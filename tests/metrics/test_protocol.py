"""One protocol for metrics in comparisons: ours, plug-ins' and torchmetrics'."""

import pytest
import torch
from noisy_images import random_images, systems
from torchmetrics import Metric, SumMetric
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance

from repro.banks import Bank
from repro.comparison import compare, derangement
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.metrics import FrechetDistance, GeneralizationScore, ReproducibilityScore, functional
from repro.metrics.protocol import pair_metrics

N = 50


@pytest.fixture(scope="module")
def images():
    return systems(3, N)


class Brighter(Metric):
    """Mean difference in brightness of uint8 images; not symmetric, no rate."""

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, a, b):
        assert a.dtype == b.dtype == torch.uint8
        self.total += (a.double().flatten(1).mean(1) - b.double().flatten(1).mean(1)).sum()
        self.count += len(a)

    def compute(self):
        return self.total / self.count


def test_any_metric_of_two_sets_of_images(images):
    metrics = [Brighter(), PeakSignalNoiseRatio(data_range=255.0), "FrechetDistance"]
    banks = [Bank.from_images(each) for each in images]
    train = random_images(70, 3, 6, 6, seed=9)
    found = compare(banks, "Pixels", train, names=list("abc"), metrics=metrics, control_seed=2)
    assert list(found.scores) == ["RP", "MAE"]
    assert list(found.values) == ["Brighter", "PeakSignalNoiseRatio", "FrechetDistance[Pixels]"]
    a, b = images[0].double(), images[1].double()
    shuffle = derangement(N, 2)
    brighter = found.values["Brighter"]
    assert brighter.values[0, 1] == pytest.approx(float((a.mean((1, 2, 3)) - b.mean((1, 2, 3))).mean()), abs=1e-9)
    assert brighter.control[0, 1] == pytest.approx(brighter.values[0, 1], abs=1e-9)
    psnr = found.values["PeakSignalNoiseRatio"]
    for values, other in ((psnr.values, b), (psnr.control, b[shuffle])):
        assert values[0, 1] == pytest.approx(float(10 * (255**2 / (a - other).square().mean()).log10()), rel=1e-5)
    features = [Pixels().features(each) for each in (*images, train)]
    distance = found.values["FrechetDistance[Pixels]"]
    assert distance.control is None
    assert distance.values[0, 2] == pytest.approx(functional.frechet_distance(features[0], features[2]), rel=1e-9)
    assert distance.train[1] == pytest.approx(functional.frechet_distance(features[1], features[3]), rel=1e-9)
    rows = {(row["score"], row["first"], row["second"]): row for row in found.table("values")}
    assert rows["FrechetDistance[Pixels]", "b", "training images"]["value"] == distance.train[1]
    assert rows["PeakSignalNoiseRatio", "a", "b"]["control"] == psnr.control[0, 1]
    assert "FrechetDistance[Pixels]" in str(found)


class _Features(torch.nn.Flatten):
    num_features = 108


class Shape(Metric):
    def update(self, a, b):
        self.size = a.shape

    def compute(self):
        return torch.zeros(3)


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        (GeneralizationScore(), "compares no pairs: its update takes (features)"),
        (FrechetInceptionDistance(feature=_Features(), input_img_size=(3, 6, 6)), "compares no pairs"),
        (SumMetric(), "compares no pairs: its update takes (value)"),
        ("ConditionalReproducibilityScore", "num_classes"),
        ("FrechetDistanc", "did you mean 'FrechetDistance'"),
        (torch.nn.ReLU(), "is no torchmetrics.Metric"),
        (Shape(), "gives (3,) numbers"),
    ],
    ids=str,
)
def test_what_compares_no_pairs_is_one_line(metric, word, images):
    with pytest.raises(UserError) as caught:
        compare([Bank.from_images(each) for each in images[:2]], "Pixels", metrics=[metric])
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_scores():
    given = {"FrechetDistance": FrechetDistance(), "mine": FrechetDistance()}
    assert list(pair_metrics(given, "SSCD")) == ["FrechetDistance[SSCD]", "mine"]
    twice = [ReproducibilityScore(0.5), ReproducibilityScore(0.7)]
    assert list(pair_metrics(twice, "SSCD")) == ["ReproducibilityScore", "ReproducibilityScore (2)"]
