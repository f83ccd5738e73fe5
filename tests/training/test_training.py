"""Training: resume is an equality, averages follow their formula, bad gradients are counted, checkpoints survive."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from trainings import assert_equal, state, trainer

from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.kernels import EDM, VP
from repro.networks.mlp import MLP
from repro.networks.song_unet import SongUNet
from repro.noise import NoiseStream, draw_noise
from repro.parameterizations import EDMPreconditioning, Eps
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes, UniformTimes
from repro.training.diffusion import Diffusion
from repro.training.optimization import ema_decay, update_average


def small(**settings):
    torch.manual_seed(0)
    network = settings.pop("network", None) or MLP(8, 1, width=16, depth=1)
    arguments = {"times": LogNormalTimes(), "lr": 1e-2, "ema_halflife": 200, "lr_warmup": 100} | settings
    return Diffusion(network, EDM(), EDMPreconditioning(), Heun(4), **arguments)


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ({"batch_size": 16, "subset": 20}, {}),
        ({"batch_size": 16, "holdout": 32, "workers": 2}, {"val_check_interval": 5}),
        ({"batch_size": 8}, {"accumulate_grad_batches": 2}),
    ],
    ids=["inside an epoch", "after validation, two workers", "accumulated"],
)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, data, settings):
    network = {"width": 8, "channel_mult": [1], "num_blocks": 1, "attention_at": [], "dropout": 0.5}

    def model():
        torch.manual_seed(0)
        return small(network=SongUNet(8, 1, **network))

    trainer(tmp_path / "whole", 10, **settings).fit(model(), datamodule=Digits(**data))
    trainer(tmp_path / "halves", 5, **settings).fit(model(), datamodule=Digits(**data))
    torch.manual_seed(99)
    last = tmp_path / "halves" / "checkpoints" / "last.ckpt"
    trainer(tmp_path / "halves", 10, **settings).fit(
        small(network=SongUNet(8, 1, **network)), datamodule=Digits(**data), ckpt_path=last
    )
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "halves"))


def test_a_checkpoint_written_during_validation_resumes_exactly(tmp_path):
    from lightning.pytorch.callbacks import Callback

    class SaveInValidation(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "during.ckpt")

    data = {"batch_size": 16, "holdout": 32}
    settings = {"val_check_interval": 5, "num_sanity_val_steps": 0}
    trainer(tmp_path / "whole", 10, callbacks=[SaveInValidation()], **settings).fit(small(), datamodule=Digits(**data))
    trainer(tmp_path / "again", 10, **settings).fit(
        small(), datamodule=Digits(**data), ckpt_path=tmp_path / "during.ckpt"
    )
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "again"))


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer(tmp_path / name, 3).fit(small(seed=seed), datamodule=Digits(batch_size=8))
    assert_equal(state(tmp_path / "a"), state(tmp_path / "b"))
    assert any(not torch.equal(x, state(tmp_path / "c")[key]) for key, x in state(tmp_path / "a").items())


def test_the_average_follows_its_formula(tmp_path):
    from lightning.pytorch.callbacks import Callback

    class Follow(Callback):
        def on_train_start(self, trainer, pl_module):
            self.average = [p.detach().double().clone() for p in pl_module.trained.parameters()]
            self.images = 0

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.images += 8
            halflife = min(200, 0.05 * self.images)
            keep = 2 ** (-8 / halflife)
            for average, p in zip(self.average, pl_module.trained.parameters(), strict=True):
                average.mul_(keep).add_(p.detach().double(), alpha=1 - keep)

    follow, model = Follow(), small()
    trainer(tmp_path, 40, callbacks=[follow]).fit(model, datamodule=Digits(batch_size=8))
    for expected, actual in zip(follow.average, model.average.parameters(), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5)
    gap = max(
        (p - q).abs().max().item() for p, q in zip(model.trained.parameters(), model.average.parameters(), strict=True)
    )
    assert gap > 1e-3


def test_half_life():
    start, end = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(start.weight, 0.0)
    torch.nn.init.constant_(end.weight, 1.0)
    for _ in range(10):
        update_average(start, end, ema_decay(50, 10**9, halflife=500, rampup=0.05))
    assert start.weight.item() == pytest.approx(0.5, abs=1e-6)
    assert ema_decay(8, 0, 500, rampup=0.05) == 0.0
    assert ema_decay(8, 80, 500, rampup=0.05) == 0.5 ** (8 / 4)


def test_buffers_are_copied_to_the_average():
    one, other = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    other.running_mean.fill_(3.0)
    update_average(one, other, 0.9)
    assert one.running_mean.tolist() == [3.0, 3.0]


class Broken(MLP):
    """Gives no finite gradient on some of its calls."""

    bad = range(0)
    calls = 0

    def forward(self, x, noise_level, labels=None):
        output = super().forward(x, noise_level, labels)
        if self.training:
            self.calls += 1
            if self.calls in self.bad:
                return output * math.inf
        return output


def test_bad_gradients_are_skipped_counted_and_fatal_past_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.training.callbacks.record_of", lambda _: {})
    monkeypatch.setattr("repro.training.base.record_of", lambda _: {})
    network = Broken(8, 1, width=16, depth=1)
    network.bad = range(3, 5)
    model = small(network=network, nonfinite_limit=2)
    trainer(tmp_path / "a", 6).fit(model, datamodule=Digits(batch_size=8))
    assert model.nonfinite_steps == 2
    assert all(p.isfinite().all() for p in model.parameters())

    network = Broken(8, 1, width=16, depth=1)
    network.bad = range(3, 50)
    with pytest.raises(UserError, match=r"3 steps had a non-finite gradient \(limit 2\)"):
        trainer(tmp_path / "b", 50).fit(small(network=network, nonfinite_limit=2), datamodule=Digits(batch_size=8))


def scaled(scale):
    """Training in float16 under a scaler, which needs no GPU; a large scale overflows, and is halved at each skip."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    return MixedPrecision("16-mixed", "cpu", scaler), scaler


def test_steps_that_a_scaler_skips_are_no_faults(tmp_path):
    plugin, scaler = scaled(2.0**36)
    model = small(nonfinite_limit=0)
    before = [each.clone() for each in model.trained.parameters()]
    trainer(tmp_path, 40, plugins=[plugin]).fit(model, datamodule=Digits(batch_size=8))
    skipped = round(36 - math.log2(scaler.get_scale()))
    assert skipped > 3
    assert model.nonfinite_steps == 0
    assert model.images_seen == 40 * 8
    after = [*model.trained.parameters()]
    assert all(each.isfinite().all() for each in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_scaler_that_skips_every_step_stops_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.training.callbacks.record_of", lambda _: {})
    monkeypatch.setattr("repro.training.base.record_of", lambda _: {})
    network = Broken(8, 1, width=16, depth=1)
    network.bad = range(2, 10**6)
    plugin, _ = scaled(2.0**4)
    with pytest.raises(UserError, match=r"the scale of float16 losses has fallen to .*bf16-mixed"):
        trainer(tmp_path, 200, plugins=[plugin], log_every_n_steps=5).fit(
            small(network=network), datamodule=Digits(batch_size=8)
        )


def test_the_loss_is_the_formula():
    torch.manual_seed(0)
    model = Diffusion(MLP(8, 1, width=16, depth=1), VP(), Eps(), Heun(4), times=UniformTimes())
    torch.nn.init.normal_(next(p for p in reversed(list(model.trained.parameters()))))
    x_0, eps, t = torch.randn(5, 1, 8, 8), torch.randn(5, 1, 8, 8), torch.rand(5) * 0.9 + 0.05
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    alpha, sigma = log_alpha.exp(), (1 - (2 * log_alpha).exp()).sqrt()
    expected = []
    for i in range(5):
        noisy = alpha[i] * x_0[i : i + 1] + sigma[i] * eps[i : i + 1]
        expected.append((model.trained.network(noisy, 999 * t[i : i + 1]) - eps[i : i + 1]).square().mean())
    torch.testing.assert_close(
        model.loss_at(model.trained, x_0, eps, t, None), torch.stack(expected), rtol=1e-4, atol=1e-6
    )


def test_edm_loss_has_its_published_weight():
    model = small()
    torch.nn.init.normal_(next(p for p in reversed(list(model.trained.parameters()))))
    x_0, eps, sigma = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.tensor([0.01, 0.3, 1.0, 20.0])
    error = model.trained.denoise(x_0 + sigma[:, None, None, None] * eps, sigma) - x_0
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight * error.square().flatten(1).mean(1)
    torch.testing.assert_close(model.loss_at(model.trained, x_0, eps, sigma, None), expected, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_rebuilds_its_model(tmp_path):
    model = small()
    trainer(tmp_path, 3).fit(model, datamodule=Digits(batch_size=8, subset=64))
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.sample(range(5)), model.model.sample(range(5)))
    assert loaded.fingerprint() == model.model.fingerprint()
    assert load_training(tmp_path).images_seen == 24
    assert loaded.data_record["args"]["subset"] == 64
    raw = load_model(tmp_path, weights="raw")
    for mine, theirs in zip(raw.denoiser.parameters(), model.trained.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_samples_come_from_numbered_noise():
    model = small()
    whole = model.model.sample(range(20))
    parts = torch.cat([model.model.sample([i]) for i in range(20)])
    assert (whole.int() - parts.int()).abs().max() <= 1
    step = model.model.sampler.trajectory(model.average, draw_noise([7], (1, 8, 8)))
    assert torch.equal(next(step).x_t, 80.0 * draw_noise([7], (1, 8, 8)).double())


def test_training_lowers_the_loss(tmp_path):
    model = small(lr=3e-3)
    images, _ = Digits(subset=32).images(), None
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(32, 1, 8, 8, generator=generator)
    t = model.times.of_uniform((torch.arange(32) + 0.5) / 32, model.trained.kernel)
    before = model.loss_at(model.average, to_float(images), eps, t, None).mean().item()
    trainer(tmp_path, 200).fit(model, datamodule=Digits(batch_size=32, subset=32))
    after = model.loss_at(model.average, to_float(images), eps, t, None).mean().item()
    assert after < 0.6 * before


SAVES = """
import sys, torch
from repro.checkpoints.native import AtomicCheckpointIO
io, step = AtomicCheckpointIO(), 0
model = {"group": "modules", "name": "Diffusion", "args": {}}
record = {"format": 1, "model": model, "data": None, "data_fingerprint": ""}
while True:
    step += 1
    checkpoint = {"state_dict": {"w": torch.full((400_000,), float(step))}, "repro": record | {"step": step}}
    io.save_checkpoint(checkpoint, sys.argv[1])
    print(step, flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    for pause in (0.0, 0.004):
        process = subprocess.Popen([sys.executable, "-c", SAVES, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            process.stdout.readline()
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        checkpoint = read_checkpoint(path)
        step = checkpoint["repro"]["step"]
        assert step >= 3
        assert (checkpoint["state_dict"]["w"] == step).all()


class Harmful:
    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize("damage", ["cut", "text", "other", "pickle"])
def test_unreadable_checkpoints_are_one_line(tmp_path, damage):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "repro": {"format": 1}}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "other":
        torch.save({"model": {}}, path)
    else:
        torch.save({"state_dict": {}, "repro": Harmful()}, path)
    with pytest.raises(UserError) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_name_the_tensor(tmp_path):
    trainer(tmp_path, 1).fit(small(), datamodule=Digits(batch_size=8))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["repro"]["model"]["record"]["args"]["network"]["args"]["width"] = 24
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"denoiser\.network\..* is \(.*\) there and \(.*\) here"):
        load_model(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr is 0"),
        ({"ema_halflife": -1}, "ema_halflife is -1"),
        ({"optimizer": "SDG"}, "did you mean 'SGD'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        small(**settings)


def test_a_network_with_a_null_class_samples_without_labels():
    network = MLP(8, 1, num_classes=10, width=16, depth=1, label_dropout=0.2)
    torch.nn.init.normal_(network.outer.weight)
    model = Diffusion(network, EDM(), EDMPreconditioning(), Heun(steps=4)).eval()
    null = model.model.generate(NoiseStream(range(3)), labels=torch.full((3,), 10))
    assert torch.equal(model.model.sample(range(3)), to_uint8(null))
    with pytest.raises(UserError, match="10 classes; give a label each"):
        Diffusion(MLP(8, 1, num_classes=10), EDM(), EDMPreconditioning(), Heun(steps=4)).model.sample(range(3))


def test_a_warm_up_longer_than_the_training_is_told(tmp_path):
    with pytest.warns(RuntimeWarning, match="lr_warmup is 1,000 images, the run has 24"):
        trainer(tmp_path, 3).fit(small(lr_warmup=1000), datamodule=Digits(batch_size=8))
