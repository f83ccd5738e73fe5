"""One protocol for metrics: in comparisons and while a model is tested; and the tests of pairs."""

import csv

import pytest
import torch
from torchmetrics import Metric, SumMetric
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance

from repro.banks import Bank, Manifest
from repro.comparison import compare, derangement
from repro.descriptors.pixels import Pixels
from repro.drawing.scores import Scores
from repro.errors import UserError
from repro.metrics import FrechetDistance, GeneralizationScore, ReproducibilityScore, functional
from repro.metrics.protocol import pair_metrics

N = 50


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.fixture(scope="module")
def images():
    base = random_images(N, 3, 6, 6).float()
    generator = torch.Generator().manual_seed(1)
    strength = torch.linspace(0, 60, N).view(-1, 1, 1, 1)
    noisy = [base + (0.2 + k) * strength * torch.randn(base.shape, generator=generator) for k in range(3)]
    return [each.clamp(0, 255).to(torch.uint8) for each in noisy]


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
    rows = {(row["score"], row["first"], row["second"]): row for row in found.value_table()}
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


def test_paired_tests_equal_the_plain_function(images, tmp_path):
    found = compare([Bank.from_images(each) for each in images], "Pixels", names=list("abc"))
    a, b, c = images
    test = found.paired_test("a", "b", "c")
    assert test == functional.paired_reproducibility_test(a, b, c, 0.8)
    assert test.p_value < 0.05
    assert found.paired_test("b", "c", "a").difference < 0
    rows = found.paired_table()
    assert [(row["system"], row["first"], row["second"]) for row in rows[:3]] == [
        ("a", "b", "c"), ("b", "a", "c"), ("c", "a", "b"),
    ]  # fmt: skip
    assert [row["score"] for row in rows] == ["RP"] * 3 + ["MAE"] * 3
    for row in rows:
        test = found.paired_test(row["system"], row["first"], row["second"], row["score"])
        assert (row["p_value"], row["difference"], row["only_first"]) == (
            test.p_value, test.difference, test.only_first,
        )  # fmt: skip
        assert row["p_value"] <= row["p_adjusted"] <= 3 * row["p_value"]
        assert (row["rate_first"], row["rate_second"]) == (test.first, test.second)
    found.write(tmp_path, figures=False)
    with open(tmp_path / "paired.csv", newline="") as file:
        assert [float(row["p_adjusted"]) for row in csv.DictReader(file)] == [row["p_adjusted"] for row in rows]
    with pytest.raises(UserError, match="unknown system 'd'"):
        found.paired_test("a", "b", "d")
    with pytest.raises(UserError, match="unknown score"):
        found.paired_test("a", "b", "c", "PR")


def test_curves_equal_the_scores(images):
    found = compare([Bank.from_images(each) for each in images], "Pixels", images[0][:20], names=list("abc"))
    rows = found.curve_table()
    checked = 0
    for row in rows[::7]:
        if row["score"] == "GL":
            x = images["abc".index(row["first"])]
            expected = functional.generalization_score(x, images[0][:20], row["threshold"])
        else:
            x, y = (images["abc".index(row[place])] for place in ("first", "second"))
            plain = functional.reproducibility_score if row["score"] == "RP" else functional.mae_score
            expected = plain(x, y, row["threshold"])
        assert row["rate"] == expected, row
        checked += 1
    assert checked > 40
    for score in ("RP", "MAE"):
        limit = found.scores[score].threshold
        at = [row for row in rows if row["score"] == score and row["threshold"] == limit]
        assert [row["count"] for row in at] == [found.scores[score].counts[pair] for pair in ((0, 1), (0, 2), (1, 2))]
        assert [row["control_count"] for row in at] == [
            found.scores[score].control[pair] for pair in ((0, 1), (0, 2), (1, 2))
        ]
    at = [row["count"] for row in rows if row["score"] == "GL" and row["threshold"] == 0.8]
    assert at == [memorization.count for memorization in found.memorization]


def conditional(images, classes=2):
    labels = torch.arange(classes).repeat(len(images) // classes)
    each = {"num_classes": classes, "images_per_seed": classes}
    manifest = Manifest(seeds=range(len(images) // classes), image_shape=images.shape[1:], labels=each)
    return Bank(images, manifest, labels)


def test_a_model_is_tested_with_any_metric(images):
    train = random_images(70, 3, 6, 6, seed=9)
    metrics = {"FrechetDistance": FrechetDistance(), "psnr": PeakSignalNoiseRatio(data_range=255.0)}
    references = {"one": Bank.from_images(images[1]), "two": Bank.from_images(images[2])}
    scores = Scores(references, Pixels(), 0.8, train=train, metrics=metrics)
    for rows in (torch.arange(30), torch.arange(20, N)):  # ten seeds come twice
        scores.update(rows, images[0][rows], None)
    found = {name: float(value) for name, value in scores.compute().items()}
    assert found["rp/one"] == functional.reproducibility_score(images[0], images[1], 0.8)
    assert found["mae/two"] == functional.mae_score(images[0], images[2])
    assert found["gl"] == functional.generalization_score(images[0], train, 0.8)
    features = [Pixels().features(each) for each in (*images, train)]
    expected = functional.frechet_distance(features[0], features[2])
    assert found["FrechetDistance[Pixels]/two"] == pytest.approx(expected, rel=1e-9)
    expected = functional.frechet_distance(features[0], features[3])
    assert found["FrechetDistance[Pixels]/training images"] == pytest.approx(expected, rel=1e-9)
    assert 0 < found["psnr/one"] < 60
    assert {row[0]: row[3] for row in scores.table()}["rp/one"] == N


def test_a_conditional_model_is_tested_class_by_class(images):
    bank = conditional(images[1])
    scores = Scores({"ref": bank}, Pixels(), 0.8, labelled=True)
    labels = torch.arange(2).repeat(N // 2)
    for rows in (torch.arange(30), torch.arange(20, N)):
        scores.update(rows[::2] // 2, images[0][rows], labels[rows])
    per_class, mean = functional.conditional_reproducibility_score(images[0], images[1], labels, 2, 0.8)
    assert float(scores.compute()["conditional_rp/ref"]) == mean
    table = {row[0]: row for row in scores.table()}
    assert [table[f"conditional_rp/ref/class {label}"][1] for label in range(2)] == per_class.tolist()
    assert table["conditional_rp/ref/class 1"][3] == N // 2
    assert table["rp/ref"][3] == N


@pytest.mark.parametrize("labelled", [True, False])
def test_between_a_conditional_and_an_unconditional_model(images, labelled):
    plain, under, noises = images[0][: N // 2], images[1], N // 2
    under = under.index_copy(0, torch.arange(noises // 2) * 4 + 1, plain[::2][: noises // 2])
    reference = Bank.from_images(plain) if labelled else conditional(under)
    scores = Scores({"ref": reference}, Pixels(), 0.8, labelled=labelled)
    labels = torch.arange(2).repeat(noises)
    for rows in (torch.arange(15), torch.arange(10, noises)):  # five seeds come twice
        both = (rows[:, None] * 2 + torch.arange(2)).flatten()
        given = (under[both], labels[both]) if labelled else (plain[rows], None)
        scores.update(rows, *given)
    features = Pixels().features(plain), Pixels().features(under).unflatten(0, (noises, 2))
    expected = functional.between_reproducibility_score(*features, 0.8)
    ((name, rate, _, count),) = scores.table()
    assert (name, rate, count) == ("between_rp/ref", expected, noises)
    assert 0.4 < rate < 1
    with pytest.raises(UserError, match="reference ref has no seed 99"):
        scores.update(torch.tensor([99]), *((under[:2], labels[:2]) if labelled else (plain[:1], None)))
