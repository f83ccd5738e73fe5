"""GAN: the published algorithm step by step, exact resumption, numbered images, and what each loss promises."""

from __future__ import annotations

import copy
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
from repro.networks.layers.spectral import SpectralConv2d, SpectralLinear
from repro.noise import NoiseStream, draw_noise
from repro.training.base import seed_step
from repro.training.gan import GAN

LOSSES = ("wgan_gp", "sngan")


def small(**settings):
    torch.manual_seed(0)
    arguments = {"architecture": "conv", "width": 4, "latent": 16, "n_critic": 3, "lr": 2e-3}
    return GAN(8, 1, **(arguments | settings))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("architecture", ["residual", "conv"])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, loss, architecture):
    """The run stops inside a cycle of n_critic steps and inside an epoch."""
    settings = {"loss": loss, "architecture": architecture, "ema_halflife": 200, "lr_decay": 1000}
    data = {"batch_size": 16, "subset": 20}
    trainer(tmp_path / "whole", 10).fit(small(**settings), datamodule=Digits(**data))
    trainer(tmp_path / "halves", 5).fit(small(**settings), datamodule=Digits(**data))
    fresh = small(**settings)
    torch.manual_seed(99)
    last = tmp_path / "halves" / "checkpoints" / "last.ckpt"
    trainer(tmp_path / "halves", 10).fit(fresh, datamodule=Digits(**data), ckpt_path=last)
    whole = state_of_all(tmp_path / "whole")
    assert_equal(whole, state_of_all(tmp_path / "halves"))
    assert {"optimizer0.0.exp_avg_sq", "optimizer1.0.exp_avg_sq"} <= whole.keys()
    assert ("discriminator.head.u" in whole) == (loss == "sngan")
    assert read_checkpoint(tmp_path / "whole")["global_step"] == 10


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer(tmp_path / name, 3).fit(small(seed=seed), datamodule=Digits(batch_size=8))
    assert_equal(state_of_all(tmp_path / "a"), state_of_all(tmp_path / "b"))
    assert any(not torch.equal(x, state_of_all(tmp_path / "c")[key]) for key, x in state_of_all(tmp_path / "a").items())


def written_out(gan, batches, loss):
    """Algorithm 1 of Gulrajani et al. and its hinge counterpart, with the module's order of draws."""
    generator, discriminator = copy.deepcopy(gan.trained).train(), copy.deepcopy(gan.discriminator).train()
    lowers_g = torch.optim.Adam(generator.parameters(), 2e-3, (0.0, 0.9))
    lowers_d = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.9))
    for step, (images, _) in enumerate(batches):
        seed_step(0, 8 * step, 0)
        real = to_float(images)
        if step % 3 == 0:
            lowers_g.zero_grad()
            (-discriminator(generator(torch.randn(16, 16)))).mean().backward()
            lowers_g.step()
        fake = generator(torch.randn(8, 16)).detach()
        answers = discriminator(torch.cat([real, fake]))
        if loss == "sngan":
            cost = (1 - answers[:8]).clamp(min=0).mean() + (1 + answers[8:]).clamp(min=0).mean()
        else:
            mix = torch.rand(8)[:, None, None, None]
            between = (fake + mix * (real - fake)).requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
            cost = (
                answers[8:].mean() - answers[:8].mean() + 10 * ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
            )
        lowers_d.zero_grad()
        cost.backward()
        lowers_d.step()
    return generator, discriminator


@pytest.mark.parametrize("loss", LOSSES)
def test_training_is_the_published_algorithm(tmp_path, loss):
    gan = small(loss=loss, generator_batch=2)
    expected = written_out(gan, list(Digits(batch_size=8).stream(5)), loss)
    start = copy.deepcopy(gan)
    trainer(tmp_path, 5).fit(gan, datamodule=Digits(batch_size=8))
    inputs = torch.randn(9, 16), to_float(Digits().images()[:9])
    mine, theirs, before = (
        [network.train()(x) for network, x in zip(networks, inputs, strict=True)]
        for networks in ((gan.trained, gan.discriminator), expected, (start.trained, start.discriminator))
    )
    for after, same, other in zip(mine, theirs, before, strict=True):
        torch.testing.assert_close(after, same, rtol=1e-3, atol=1e-4)
        assert (after - other).abs().max() > 0.02


def test_the_discriminator_steps_n_critic_times_for_each_step_of_the_generator(tmp_path):
    trainer(tmp_path, 7).fit(small(), datamodule=Digits(batch_size=8))
    generator, discriminator = read_checkpoint(tmp_path)["optimizer_states"]
    assert {slots["step"].item() for slots in generator["state"].values()} == {3}
    assert {slots["step"].item() for slots in discriminator["state"].values()} == {7}


class Linear(torch.nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.slope = torch.nn.Parameter(slope)

    def forward(self, x):
        return (x * self.slope).sum((1, 2, 3))


def test_losses_of_a_linear_critic():
    """D(x) = <w, x>: the penalty is 10 (|w| - 1)^2, the losses are products of w with means."""
    gan, slope = small(loss="wgan_gp"), torch.randn(1, 8, 8)
    gan.discriminator = Linear(slope)
    fakes, x_0 = torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)
    gan._fakes = lambda count: fakes[:count]
    parts = gan.discriminator_losses(x_0)
    assert parts["gradient_penalty"].item() == pytest.approx(10 * (slope.norm().item() - 1) ** 2, rel=1e-5)
    assert parts["loss_d"].item() == pytest.approx(((fakes - x_0).mean(0) * slope).sum().item(), rel=1e-4)
    assert gan.generator_loss(6).item() == pytest.approx(-(fakes.mean(0) * slope).sum().item(), rel=1e-4)
    assert small(loss="sngan").discriminator_losses(x_0).keys() == {"loss_d"}


@pytest.mark.parametrize("loss", LOSSES)
def test_training_moves_the_generator_to_the_data(tmp_path, loss):
    data = Digits(batch_size=16, subset=1)
    gan, target = small(loss=loss, lr=5e-3, n_critic=1), to_float(Digits(subset=1).images()[0])
    before = (to_float(gan.model.sample(range(50))) - target).square().mean().item()
    trainer(tmp_path, 100).fit(gan, datamodule=data)
    after = (to_float(gan.model.sample(range(50))) - target).square().mean().item()
    assert after < 0.2 * before


def test_the_discriminator_keeps_to_its_constraint(tmp_path):
    """SNGAN: the norm of every weight is just above 1, its estimate a lower bound. WGAN-GP: slopes are near 1."""
    data = Digits(batch_size=16)
    spectral, penalised = small(loss="sngan", lr=2e-4), small(loss="wgan_gp")
    trainer(tmp_path / "sngan", 100).fit(spectral, datamodule=data)
    layers = [m for m in spectral.discriminator.eval().modules() if isinstance(m, SpectralConv2d | SpectralLinear)]
    assert len(layers) == 4
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.normalised().flatten(1), ord=2).item()
        assert 0.999 < norm < 1.1
    trainer(tmp_path / "wgan", 100).fit(penalised, datamodule=Digits(batch_size=16))
    between = (0.5 * to_float(data.images()[:64]) + 0.5 * to_float(penalised.model.sample(range(64)))).requires_grad_()
    (slope,) = torch.autograd.grad(penalised.discriminator(between).sum(), between)
    assert slope.flatten(1).norm(dim=1).mean().item() == pytest.approx(1, abs=0.25)


def test_image_of_a_noise_depends_on_nothing_else(tmp_path):
    gan = small(architecture="residual")
    trainer(tmp_path, 3).fit(gan, datamodule=Digits(batch_size=8))
    whole = gan.model.sample(range(20))
    parts = torch.cat([gan.model.sample([i]) for i in range(20)])
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("latent", [5, 16, 40, 64])
def test_latents_are_the_first_normals_of_the_noise(latent):
    given = []
    gan = small(latent=latent)
    gan.average.register_forward_pre_hook(lambda _, z: given.append(z[0]))
    gan.model.generate(NoiseStream([3, 8]))
    assert torch.equal(given[0], draw_noise([3, 8], (1, 8, 8)).flatten(1)[:, :latent])


@pytest.mark.parametrize("loss", LOSSES)
def test_mixed_precision_trains_too(tmp_path, loss):
    """Spectral norms stay in float32: their estimates keep to those of full precision."""
    full, mixed = small(loss=loss, lr=1e-4), small(loss=loss, lr=1e-4)
    for name, gan, precision in (("full", full, "32-true"), ("mixed", mixed, "bf16-mixed")):
        trainer(tmp_path / name, 4, precision=precision).fit(gan, datamodule=Digits(batch_size=8))
    assert mixed.nonfinite_steps == 0
    for one, other in zip(full.discriminator.buffers(), mixed.discriminator.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    assert (full.model.sample(range(9)).int() - mixed.model.sample(range(9)).int()).abs().max() < 10


def test_averaging_is_optional(tmp_path):
    plain, averaged = small(), small(ema_halflife=100, ema_rampup=None)
    for name, gan in (("plain", plain), ("averaged", averaged)):
        trainer(tmp_path / name, 4).fit(gan, datamodule=Digits(batch_size=8))
    for last, average in zip(plain.trained.state_dict().values(), plain.average.state_dict().values(), strict=True):
        assert torch.equal(last, average)
    assert not torch.equal(averaged.trained.stem.weight, averaged.average.stem.weight)


def test_a_checkpoint_rebuilds_its_model(tmp_path):
    gan = small(ema_halflife=100, ema_rampup=None)
    trainer(tmp_path, 3).fit(gan, datamodule=Digits(batch_size=8, subset=64))
    loaded, raw = load_model(tmp_path), load_model(tmp_path, weights="raw")
    assert torch.equal(loaded.sample(range(5)), gan.model.sample(range(5)))
    assert loaded.fingerprint() == gan.model.fingerprint()
    assert torch.equal(raw.generator.stem.weight, gan.trained.stem.weight)


def test_the_learning_rate_falls_with_the_images_seen():
    gan = small(lr=1e-3, lr_warmup=100, lr_decay=1000)
    rates = {}
    for gan.images_seen in (0, 49, 200, 750, 1000, 2000):
        rates[gan.images_seen] = gan.learning_rate()
    expected = {0: 1e-5, 49: 5e-4 * 0.951, 200: 8e-4, 750: 2.5e-4, 1000: 0, 2000: 0}
    assert rates == pytest.approx(expected)


def test_bad_gradients_are_skipped_counted_and_fatal_past_the_limit(tmp_path):
    gan = small(loss="sngan", nonfinite_limit=2)
    gan.discriminator.head.weight.register_hook(lambda slope: slope * (math.nan if gan.images_seen in bad else 1))
    bad = (16, 24)
    trainer(tmp_path / "a", 5).fit(gan, datamodule=Digits(batch_size=8))
    assert gan.nonfinite_steps == 2
    assert all(p.isfinite().all() for p in gan.parameters())
    bad = range(10**6)
    with pytest.raises(UserError, match=r"3 steps had a non-finite gradient \(limit 2\).*lower --model.lr$"):
        trainer(tmp_path / "b", 5).fit(gan, datamodule=Digits(batch_size=8))


def test_both_losses_are_logged_whatever_the_cycle(tmp_path):
    settings = {"log_every_n_steps": 4, "logger": CSVLogger(tmp_path, name=None, version="")}
    data = Digits(batch_size=8, holdout=16)
    trainer(tmp_path, 12, val_check_interval=12, **settings).fit(small(loss="wgan_gp", n_critic=5), datamodule=data)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    trained = [row for row in rows if row["train/loss_d"]]
    assert [int(row["step"]) for row in trained] == [3, 7, 11]
    for row in trained:
        for name in ("loss_d", "loss_g", "gradient_penalty", "grad_norm_g", "grad_norm_d", "lr"):
            assert math.isfinite(float(row[f"train/{name}"])), name
    assert trained[0]["train/loss_g"] != trained[-1]["train/loss_g"]
    assert any(math.isfinite(float(row["val/loss_d"])) for row in rows if row["val/loss_d"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "wgan"}, "did you mean 'wgan_gp'"),
        ({"architecture": "resnet"}, "unknown architecture of GAN 'resnet'.*residual"),
        ({"n_critic": 0}, "n_critic of GAN is 0; give at least 1"),
        ({"penalty": -1.0}, "penalty of GAN is -1"),
        ({"image_size": 9}, "image_size 9 is not 9 times a power of two.*give a size such as 8, 16, 28"),
        ({"image_size": None}, "GAN needs image_size; give it, or let the command line fill it in"),
        ({"num_classes": 10}, "GAN is unconditional, num_classes is 10; type --task unconditional"),
        ({"ema_halflife": -1}, "ema_halflife is -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        GAN(**({"image_size": 8, "channels": 1, "width": 4} | settings))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.loss", "wgan"], "did you mean 'wgan_gp'"),
        (["--task", "conditional"], "GAN is unconditional, num_classes is 10; type --task unconditional"),
        (["--model.widht", "8"], "did you mean"),
        (["--data.resize", "9"], "give a size such as 8, 16, 28, 32 or 64"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--model", "GAN", "--data", "Digits", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
