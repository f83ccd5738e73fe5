"""Scores of a model as it draws: with chance levels, and in a file too."""

from __future__ import annotations

import csv

import pytest
import torch
from trainings import trainer

from repro.banks import Bank
from repro.cli.main import main
from repro.data.digits import Digits
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SmallSSCD
from repro.drawing import draw, score
from repro.drawing.scores import Scores
from repro.kernels import EDM
from repro.metrics.functional.similarity import cosine
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.training.diffusion import Diffusion


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2), lr=0.01)
    trainer(folder, 20).fit(module, datamodule=Digits(batch_size=16, holdout=40))
    return folder


def test_every_rate_has_its_chance_level_by_hand(run):
    drawn = draw(run, "0-29")
    other = Bank.from_images(drawn.images.roll(1, 0).clone(), seeds=range(30))
    scores = score(run, "0-29", reference=[other], descriptor=Pixels(), threshold=0.9)
    name = next(name for name in scores.metrics if name.startswith("rp/"))
    features = Pixels().features(drawn.images)
    shifted = Pixels().features(other.images.roll(-1, 0))
    assert scores.chances()[name] == (cosine(features, shifted) > 0.9).double().mean().item()
    assert scores.chances()[name] == 1.0, "the next noise's image of the reference is the model's own"
    unseen, train = (
        Pixels().features(each) for each in (Digits(holdout=40).held_out()[0], Digits(holdout=40).images())
    )
    nearest = (unseen @ train.T).amax(1)
    assert scores.chances()["gl"] == pytest.approx((nearest <= 0.9).double().mean().item())


def test_the_numbers_are_written_with_what_they_were_measured_under(run):
    scores = score(run, "0-9", descriptor=Pixels())
    rows = list(csv.DictReader(scores.written.read_text().splitlines()))
    assert [row["score"] for row in rows] == ["gl"]
    assert (rows[0]["n"], rows[0]["descriptor"], rows[0]["seeds"]) == ("10", "Pixels", "0-9")
    assert float(rows[0]["value"]) == float(scores.compute()["gl"])
    assert float(rows[0]["chance"]) == scores.chances()["gl"]


def test_batches_do_not_matter(run):
    whole, parts = (score(run, "0-9", descriptor=Pixels(), batch_size=size).table() for size in (10, 3))
    assert whole == parts


def test_a_single_seed_is_its_own_next(run):
    bank = draw(run, "5")
    scores = Scores({"a": bank}, Pixels(), 0.9)
    scores.update(torch.tensor([5]), bank.images, None)
    assert scores.chances()["rp/a"] == 1.0


def test_gl_without_unseen_images_has_the_chance_level_of_other_training_images(run):
    train, bank = Digits(subset=60).images(), draw(run, "0-4")
    scores = Scores({}, Pixels(), 0.9, train=train)
    scores.update(torch.arange(5), bank.images, None)
    features = Pixels().features(train)
    nearest = (features @ features.T).fill_diagonal_(-1).amax(1)
    assert scores.chances() == {"gl": pytest.approx((nearest <= 0.9).double().mean().item())}
    assert 0 < scores.chances()["gl"] < 1


def test_images_that_the_descriptor_was_not_made_for_are_told(run, capsys):
    noise = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8)
    lines = []
    for images in (Digits(subset=5).images(), noise):
        scores = Scores({}, SmallSSCD("digits"), 0.86, train=images)
        scores.update(torch.arange(5), images, None)
        lines.append(scores.warning)
    assert lines[0] is None
    assert lines[1].startswith("SmallSSCD(digits) was made for")
    assert "16 x 16" in lines[1]
    options = ["--descriptor", "SmallSSCD", "--descriptor.weights", "cifar", "--seeds", "0-4"]
    assert main(["test", "--ckpt_path", str(run), *options, "--trainer.accelerator", "cpu"]) == 0
    assert "warning: SmallSSCD(cifar) was made for" in capsys.readouterr().out
