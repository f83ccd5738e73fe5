"""VAE: its loss in closed form, warm-up, exact resumption, numbered images, and that it learns."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from trainings import assert_equal, state_of_all, trainer

from repro.checkpoints.loading import load_model
from repro.checkpoints.native import read_checkpoint
from repro.cli.main import main
from repro.data.digits import Digits
from repro.errors import UserError
from repro.images import to_float
from repro.noise import NoiseStream, draw_noise
from repro.training.vae import VAE


def small(**settings):
    torch.manual_seed(0)
    return VAE(8, 1, **({"latent": 4, "hidden": 16, "components": 5, "lr": 2e-3} | settings))


def fixed_posterior(mean, log_variance, **settings):
    """A VAE whose decoder says one half everywhere and whose posterior is the same normal for every image."""
    model = small(likelihood="bernoulli", **settings)
    network = model.trained
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(network.posterior_mean.bias, mean)
    torch.nn.init.constant_(network.posterior_log_variance.bias, log_variance)
    return model


def test_the_loss_is_the_bound_in_closed_form():
    """64 log 2 for undecided pixels, and (var + mean^2 - 1 - log var) / 2 for each of the 4 latents."""
    model = fixed_posterior(0.7, -1.2)
    x_0 = torch.rand(20_000, 1, 8, 8) * 2 - 1
    torch.manual_seed(1)
    loss = model.loss(x_0, None)
    assert loss.shape == (20_000,)
    divergence = 4 * (math.exp(-1.2) + 0.49 - 1 + 1.2) / 2
    assert loss.mean().item() == pytest.approx(64 * math.log(2) + divergence, abs=5 * loss.std().item() / 20_000**0.5)


def test_a_posterior_that_is_the_prior_costs_nothing():
    x_0 = torch.rand(50, 1, 8, 8) * 2 - 1
    loss = fixed_posterior(0.0, 0.0).loss(x_0, None)
    torch.testing.assert_close(loss, torch.full((50,), 64 * math.log(2)))
    vamp = fixed_posterior(0.7, -1.2, prior="vamp").loss(x_0, None)
    torch.testing.assert_close(vamp, torch.full((50,), 64 * math.log(2)))


def test_the_divergence_warms_up():
    model = fixed_posterior(2.0, 0.0, kl_warmup=400)
    x_0, losses = torch.zeros(2000, 1, 8, 8), {}
    for model.images_seen in (0, 100, 400, 4000):
        torch.manual_seed(1)
        losses[model.images_seen] = model.loss(x_0, None).mean().item() - 64 * math.log(2)
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[400] == pytest.approx(8, abs=0.5)
    assert losses[100] == pytest.approx(losses[400] / 4, rel=1e-4)
    assert losses[4000] == losses[400]


def test_binarised_pixels_are_white_with_their_brightness():
    model, seen = small(binarize=True, likelihood="bernoulli"), []
    model.trained.encoder.register_forward_pre_hook(lambda _, pixels: seen.append(pixels[0]))
    brightness = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    model.loss((2 * brightness - 1).expand(4000, -1, -1, -1), None)
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(seen[0].mean(0), brightness.flatten(), rtol=0, atol=0.04)
    assert (seen[0][0] != seen[0][1]).any()


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, prior):
    settings = {"prior": prior, "kl_warmup": 100, "ema_halflife": 200, "binarize": True, "likelihood": "bernoulli"}
    data = {"batch_size": 16, "subset": 20}
    trainer(tmp_path / "whole", 10).fit(small(**settings), datamodule=Digits(**data))
    trainer(tmp_path / "halves", 5).fit(small(**settings), datamodule=Digits(**data))
    fresh = small(**settings)
    torch.manual_seed(99)
    last = tmp_path / "halves" / "checkpoints" / "last.ckpt"
    trainer(tmp_path / "halves", 10).fit(fresh, datamodule=Digits(**data), ckpt_path=last)
    whole = state_of_all(tmp_path / "whole")
    assert_equal(whole, state_of_all(tmp_path / "halves"))
    assert ("trained.pseudo" in whole) == (prior == "vamp")
    assert read_checkpoint(tmp_path / "whole")["global_step"] == 10


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_training_draws_the_only_image(tmp_path, prior):
    model = small(prior=prior, likelihood="bernoulli", lr=1e-2, ema_halflife=100)
    target = Digits(subset=1).images().int()
    before = (model.model.sample(range(50)).int() - target).abs().float().mean().item()
    trainer(tmp_path, 150).fit(model, datamodule=Digits(batch_size=16, subset=1))
    after = (model.model.sample(range(50)).int() - target).abs().float().mean().item()
    assert after < 5 < 40 < before


def test_the_bound_on_held_out_images_is_logged(tmp_path):
    settings = {"val_check_interval": 5, "log_every_n_steps": 1, "logger": CSVLogger(tmp_path, name=None, version="")}
    model, data = small(kl_warmup=1000), Digits(batch_size=32, holdout=32)
    trainer(tmp_path, 5, num_sanity_val_steps=0, **settings).fit(model, datamodule=data)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    held = next(row for row in rows if row["val/loss"])
    with torch.no_grad():
        terms = model.terms(model.average, to_float(data.held_out()[0]), torch.Generator().manual_seed(0))
    reconstruction, divergence = (term.mean().item() for term in terms)
    assert float(held["val/loss"]) == pytest.approx(divergence - reconstruction, rel=1e-5)
    assert float(held["val/kl"]) == pytest.approx(divergence, rel=1e-5)
    last = [row for row in rows if row["train/loss"]][-1]
    logged = {name: float(last[f"train/{name}"]) for name in ("loss", "reconstruction", "kl", "beta")}
    assert logged["beta"] == pytest.approx(128 / 1000)
    assert logged["loss"] == pytest.approx(logged["beta"] * logged["kl"] - logged["reconstruction"], rel=1e-5)


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_image_of_a_noise_depends_on_nothing_else(prior):
    model = small(prior=prior, latent=20)
    whole = model.model.sample(range(20))
    parts = torch.cat([model.model.sample([i]) for i in range(20)])
    assert (whole.int() - parts.int()).abs().max() <= 1
    given = []
    model.average.register_forward_pre_hook(lambda _, z: given.append(z[0]))
    model.model.generate(NoiseStream([3, 8]))
    assert torch.equal(given[0], draw_noise([3, 8], (1, 8, 8)).flatten(1)[:, : 20 + (prior == "vamp")])


def test_a_checkpoint_rebuilds_its_model(tmp_path):
    model = small(prior="vamp", ema_halflife=100)
    trainer(tmp_path, 3).fit(model, datamodule=Digits(batch_size=8, subset=64))
    loaded, raw = load_model(tmp_path), load_model(tmp_path, weights="raw")
    assert torch.equal(loaded.sample(range(5)), model.model.sample(range(5)))
    assert loaded.fingerprint() == model.model.fingerprint()
    assert torch.equal(raw.network.pseudo, model.trained.pseudo)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "vampprior"}, "did you mean 'vamp'"),
        ({"likelihood": "gaussian"}, "unknown likelihood of VAE 'gaussian'"),
        ({"latent": 0}, "latent of VAE is 0; give at least 1"),
        ({"kl_warmup": -1}, "kl_warmup is -1; give at least 0"),
        ({"channels": None}, "VAE needs channels; give it, or let the command line fill it in"),
        ({"num_classes": 10}, "VAE is unconditional, num_classes is 10; type --task unconditional"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        VAE(**({"image_size": 8, "channels": 1, "hidden": 4} | settings))


def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--model", "VAE", "--data", "Digits", "--model.prior", "vampprior"]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'vamp'" in told
    assert told.count("\n") == 1
