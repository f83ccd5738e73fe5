"""A model is scored while it draws: the numbers equal those of the plain functions."""

import pytest
import torch
from noisy_images import random_images, systems
from torchmetrics.image import PeakSignalNoiseRatio

from repro.banks import Bank, Manifest
from repro.descriptors.pixels import Pixels
from repro.drawing.scores import Scores
from repro.errors import UserError
from repro.metrics import FrechetDistance, functional

N = 50


@pytest.fixture(scope="module")
def images():
    return systems(3, N)


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
