"""Scores of a model as it draws: with chance levels, and in a file too."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noisy_images import random_images
from trainings import trainer

from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.cli.main import main
from repro.data.arrays import ImageArray
from repro.data.digits import Digits
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SmallSSCD
from repro.drawing import draw, score
from repro.drawing.described import Described
from repro.drawing.drawing import Drawing
from repro.drawing.scores import Scores
from repro.errors import UserError
from repro.kernels import EDM
from repro.metrics import BitsPerDimension
from repro.metrics.functional import bits_per_dimension
from repro.metrics.functional.similarity import cosine
from repro.models.vae import VAEModel
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


def test_likelihood_of_training_and_held_out_images(run, capsys, tmp_path):
    model, data = load_model(run), Digits(holdout=40)
    options = ["--descriptor", "Pixels", "--seeds", "0-5", "--metric", "BitsPerDimension"]
    words = ["test", "--ckpt_path", str(run), *options, "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    rows = {row["score"]: row for row in csv.DictReader((run / "unconditional_0-5.scores.csv").open())}
    for kind, images in (("training images", data.images()), ("held-out images", data.held_out()[0])):
        bits = bits_per_dimension(model.denoiser, images[:6]).bits
        row = rows[f"BitsPerDimension/{kind}"]
        assert float(row["value"]) == pytest.approx(float(bits.mean()), rel=1e-6)
        assert float(row["low"]) < float(row["value"]) < float(row["high"])
        assert row["n"] == "6"
    assert "BitsPerDimension/held-out images: " in capsys.readouterr().out


def test_processes_share_the_images_of_a_likelihood(run):
    model, data = load_model(run), Digits(holdout=40)
    rows = []
    for ranks in ([0], [0, 1]):
        measured = [Described(model, {"Bits": BitsPerDimension(steps=4)}, data, 5, False) for _ in ranks]
        for rank, each in zip(ranks, measured, strict=True):
            each.measure(SimpleNamespace(global_rank=rank, world_size=len(ranks), device=torch.device("cpu")))
        parts = [each.metrics["Bits/held-out images"]._known() for each in measured]
        together = torch.cat(parts)
        rows.append(together[together[:, 0].argsort()])
    assert rows[0][:, 0].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("data", "seeds", "message"),
    [
        (None, "0-9", "BitsPerDimension needs images; type --data NAME"),
        (Digits(), "0", "needs at least 2 images, as many as there are seeds; type --seeds 0-99"),
        (ImageArray("set.npy", channels="first"), "0-9", "shape 1x8x8; the data have 3x6x6"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_likelihood_is_refused_before_anything_is_drawn(data, seeds, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("set.npy", random_images(8, 3, 6, 6).numpy())
    monkeypatch.setattr(Drawing, "images", lambda *_: pytest.fail("something was drawn"))
    model = load_model(run)
    model.data_record = None
    with pytest.raises(UserError, match=message):
        score(model, seeds, metric=["BitsPerDimension"], descriptor=Pixels(), data=data)


def test_a_model_without_a_denoiser_has_no_likelihood():
    model = VAEModel(8, 1, latent=2, hidden=8)
    with pytest.raises(UserError, match="BitsPerDimension: the model is a VAEModel, which has no denoiser"):
        score(model, "0-9", metric=["BitsPerDimension"], descriptor=Pixels(), data=Digits())


def test_a_model_that_needs_no_training_is_scored_in_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--seeds", "0-3", "--descriptor", "Pixels", "--trainer.accelerator", "cpu"]
    assert main(["test", "--config", "digits/gaussian", *words]) == 0
    assert (tmp_path / "runs" / "gaussian" / "unconditional_0-3.scores.csv").is_file()
