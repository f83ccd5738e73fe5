"""Consistency models in training: averages, exact resume, and students that stand without their teacher."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from consistency_models import SHAPE, Closed, distilled, small, trained_on_data
from torch import nn
from trainings import assert_equal, state, trainer

from repro import records
from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.denoisers import GaussianDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.images import to_float
from repro.kernels import EDM, VE, VP
from repro.networks.mlp import MLP
from repro.networks.song_unet import SongUNet
from repro.noise import draw_noise
from repro.parameterizations import ConsistencyPreconditioning, EDMPreconditioning, Eps
from repro.samplers.consistency import Consistency
from repro.samplers.heun import Heun
from repro.testing.samplers import GaussianConsistency
from repro.training.consistency import ConsistencyDistillation
from repro.training.diffusion import Diffusion


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run of a small diffusion model."""
    folder = tmp_path_factory.mktemp("teacher")
    model = Diffusion(small(), EDM(), EDMPreconditioning(0.4), Heun(4), lr=3e-3, ema_halflife=100)
    trainer(folder, 60).fit(model, datamodule=Digits(batch_size=16, subset=64))
    return folder


def test_training_brings_the_student_to_the_closed_form(tmp_path):
    gaussian = GaussianDenoiser(EDM(), SHAPE, 0.2, 0.5)
    right = Consistency().sample(GaussianConsistency(EDM(), SHAPE, 0.2, 0.5), draw_noise(range(64), SHAPE))
    model = distilled(gaussian, network=small(width=64), lr=3e-3, target_decay=0.0, weighting="karras")

    def errors():
        x_0, eps = torch.randn(2, 64, *SHAPE, generator=torch.Generator().manual_seed(1))
        t, s = model.pairs(torch.arange(64) % 7)
        with torch.no_grad():
            loss = model.loss_at(model.average, model.average, x_0, eps, t, s).mean().item()
        images = Consistency().sample(model.average, draw_noise(range(64), SHAPE))
        return loss, (images - right).square().mean().item()

    before = errors()
    trainer(tmp_path, 200).fit(model, datamodule=Digits(batch_size=32))
    after = errors()
    assert after[0] < 0.2 * before[0]
    assert after[1] < 0.3 * before[1]


@pytest.mark.parametrize(
    ("make", "settings"),
    [(distilled, {"val_check_interval": 3}), (trained_on_data, {"accumulate_grad_batches": 2})],
    ids=["distillation, after validation", "training, accumulated"],
)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, make, settings):
    def model():
        torch.manual_seed(0)
        unet = SongUNet(8, 1, width=8, channel_mult=[1], num_blocks=1, attention_at=[], dropout=0.5)
        return make(network=unet, adaptive_decay=True, last_levels=12, schedule_steps=6)

    def data():
        return Digits(batch_size=8, subset=20, holdout=16)

    trainer(tmp_path / "whole", 6, **settings).fit(model(), datamodule=data())
    trainer(tmp_path / "halves", 3, **settings).fit(model(), datamodule=data())
    torch.manual_seed(99)
    again = model()
    last = tmp_path / "halves" / "checkpoints" / "last.ckpt"
    trainer(tmp_path / "halves", 6, **settings).fit(again, datamodule=data(), ckpt_path=last)
    whole = state(tmp_path / "whole")
    assert_equal(whole, state(tmp_path / "halves"))
    assert again.steps == 6
    assert again.levels_now == 13
    assert any(key.startswith("target.") for key in whole)


def test_target_and_average_follow_their_formulas(tmp_path):
    from lightning.pytorch.callbacks import Callback

    class Follow(Callback):
        def on_train_start(self, trainer, module):
            self.target = [p.detach().double().clone() for p in module.target.parameters()]
            self.decays = []

        def on_train_batch_end(self, trainer, module, *_):
            k = trainer.global_step - 1
            n = math.ceil(math.sqrt(k / 10 * (13**2 - 2**2) + 2**2) - 1) + 1
            self.decays.append(math.exp(2 * math.log(0.9) / (max(n, 2) - 1)))
            for kept, new in zip(self.target, module.trained.parameters(), strict=True):
                kept.lerp_(new.detach().double(), 1 - self.decays[-1])

    follow, model = Follow(), trained_on_data()
    trainer(tmp_path, 10, callbacks=[follow]).fit(model, datamodule=Digits(batch_size=8))
    assert follow.decays[0] == pytest.approx(0.81)
    assert follow.decays[-1] > 0.98
    for expected, actual in zip(follow.target, model.target.parameters(), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)
    gaps = [
        max((p - q).abs().max().item() for p, q in zip(model.target.parameters(), other.parameters(), strict=True))
        for other in (model.trained, model.average)
    ]
    assert min(gaps) > 1e-4


def test_labels_reach_all_three_networks(tmp_path):
    torch.manual_seed(0)
    network = MLP(8, 1, 10, width=16, depth=1)
    nn.init.normal_(network.outer.weight)
    model = Diffusion(network, EDM(), EDMPreconditioning(), Heun(4), ema_halflife=0)
    trainer(tmp_path, 2).fit(model, datamodule=Digits(batch_size=8))
    student = ConsistencyDistillation(str(tmp_path), levels=4)
    assert student.num_classes == 10
    x_0, eps = torch.randn(2, 6, *SHAPE)
    t, s = student.pairs(torch.arange(6) % 3)
    labels = torch.arange(6)
    losses = [student.loss_at(student.trained, student.target, x_0, eps, t, s, each) for each in (labels, labels + 1)]
    assert ((losses[0] - losses[1]).abs() > 1e-7).all()
    seen = {}
    parts = (("student", student.trained), ("target", student.target), ("teacher", student.teaching.of(student)))
    for name, part in parts:
        part.network.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[2]}))
    student.loss_at(student.trained, student.target, x_0, eps, t, s, labels)
    assert all(torch.equal(seen[name], labels) for name, _ in parts)
    with pytest.raises(UserError, match="10 classes; give a label each"):
        student.model.sample([0])


def test_a_student_starts_as_its_teacher(teacher):
    student, source = ConsistencyDistillation(str(teacher)), load_model(teacher).denoiser
    for ours, theirs in zip(student.trained.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad
        assert not theirs.requires_grad
    assert student.trained.parameterization.sigma_data == 0.4
    x, t = 3 * torch.randn(5, *SHAPE), torch.full((5,), 3.0)
    torch.testing.assert_close(student.trained.denoise(x, t), source.denoise(x, t), rtol=1e-2, atol=2e-3)
    assert not [name for name in student.state_dict() if "teacher" in name or "source" in name]
    roots = {name.partition(".")[0] for name in student.state_dict()}
    assert roots == {"trained", "model", "target"}


def test_a_checkpoint_stands_without_its_teacher(tmp_path, teacher):
    shutil.copytree(teacher, tmp_path / "teacher")
    student = ConsistencyDistillation(str(tmp_path / "teacher"), levels=4, ema_halflife=50)
    trainer(tmp_path / "student", 4).fit(student, datamodule=Digits(batch_size=8))
    shutil.rmtree(tmp_path / "teacher")
    again = load_model(tmp_path / "student")
    assert torch.equal(again.sample(range(5)), student.model.sample(range(5)))
    assert again.fingerprint() == student.model.fingerprint()
    record = read_checkpoint(tmp_path / "student")["repro"]["training"]["record"]["args"]
    assert record["teacher"] == str(tmp_path / "teacher")
    assert record["network"]["args"]["width"] == 16
    assert record["kernel"]["name"] == "EDM"
    assert record["sampler"]["name"] == "Consistency"
    assert record["sigma_data"] == 0.4
    module = load_training(tmp_path / "student")
    with pytest.raises(UserError, match="teacher: no checkpoint at"):
        module.teaching.of(module)


def test_another_teacher_is_no_resume(tmp_path, teacher):
    shutil.copytree(teacher, tmp_path / "teacher")
    folder, data = tmp_path / "student", Digits(batch_size=8)
    trainer(folder, 2).fit(ConsistencyDistillation(str(tmp_path / "teacher"), levels=4), datamodule=data)
    path = tmp_path / "teacher" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.denoiser.network.outer.weight"] += 0.1
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="are not those that training began with"):
        trainer(folder, 4).fit(
            ConsistencyDistillation(str(tmp_path / "teacher"), levels=4),
            datamodule=data,
            ckpt_path=folder / "checkpoints" / "last.ckpt",
        )


def test_images_do_not_depend_on_the_batch(teacher):
    student = ConsistencyDistillation(str(teacher))
    student.model.check_drawing(Consistency())
    whole = student.model.sample(range(20))
    parts = torch.cat([student.model.sample(range(i, min(i + 7, 20))) for i in range(0, 20, 7)])
    assert (whole.int() - parts.int()).abs().max() <= 1
    closed = NetworkDenoiser(Closed(0.2), EDM(), ConsistencyPreconditioning())
    images = [Consistency().sample(closed, draw_noise(seeds, SHAPE)) for seeds in (range(20), range(7, 14), [13])]
    assert torch.equal(images[0][7:14], images[1])
    assert torch.equal(images[0][13:14], images[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "huen"}, "did you mean 'heun'"),
        ({"levels": 1}, "levels is 1; give at least 2"),
        ({"last_levels": 3}, "last_levels is 3; give at least 8"),
        ({"schedule_steps": 0}, "schedule_steps is 0"),
        ({"target_decay": 1.0}, "target_decay is 1"),
        ({"distance": "lpips"}, "unknown distance 'lpips'"),
        ({"weighting": "snr+1"}, "unknown weighting"),
        ({"sampler": Heun()}, "sampler is Heun, which walks a denoiser"),
        ({"kernel": VE(0.01, 500.0)}, "noise levels from 0.01 to 500, the teacher's EDM from 0.002 to 80"),
        ({"network": MLP(16, 1, width=8)}, "the teacher has images 1x8x8, the student 1x16x16"),
        ({"network": MLP(8, 1, 10, width=8)}, "the teacher has classes 0, the student 10"),
        ({"network": None}, "the teacher is a GaussianDenoiser, which has no network"),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
def test_mistakes(settings, message, tmp_path):
    with pytest.raises(UserError, match=message.replace("+", r"\+")) as caught:
        trainer(tmp_path, 1).fit(distilled(**settings), datamodule=Digits(batch_size=8))
    assert "\n" not in str(caught.value)


def test_teachers_that_do_not_fit(tmp_path, teacher):
    models = {
        "consistency": distilled(),
        "eps": Diffusion(small(), VP(), Eps(), Heun(4)),
    }
    for name, model in models.items():
        trainer(tmp_path / name, 1).fit(model, datamodule=Digits(batch_size=8))
    for name, message in (
        ("consistency", "is a consistency model"),
        ("eps", "trained under Eps, a consistency model starts from EDMPreconditioning"),
        ("nothing", "teacher: no checkpoint at"),
    ):
        with pytest.raises(UserError, match=message):
            ConsistencyDistillation(str(tmp_path / name))
    fresh = ConsistencyDistillation(str(tmp_path / "eps"), small(), levels=4)
    trainer(tmp_path / "fresh", 2).fit(fresh, datamodule=Digits(batch_size=8))
    assert type(fresh.trained.kernel) is VP
    with pytest.raises(UserError, match="is for images 1x8x8, Digits has 1x16x16"):
        trainer(tmp_path / "large", 1).fit(
            ConsistencyDistillation(str(teacher)), datamodule=Digits(batch_size=8, resize=16)
        )


@pytest.mark.parametrize("make", [distilled, trained_on_data], ids=["distillation", "training"])
def test_validation_measures_the_average(tmp_path, make):
    model, data = make(), Digits(batch_size=8, subset=40, holdout=16)
    fit = trainer(tmp_path, 6, val_check_interval=3)
    fit.fit(model, datamodule=data)
    assert model.steps == 6
    losses = []
    for batch_idx, (images, _) in enumerate(data.val_dataloader()):
        eps = torch.randn(len(images), *SHAPE, generator=torch.Generator().manual_seed(batch_idx))
        t, s = model.pairs((torch.arange(8) / 8 * (model.levels_now - 1)).long())
        losses.append(model.loss_at(model.average, model.average, to_float(images), eps, t, s))
    assert len(torch.cat(losses)) == 16
    assert fit.callback_metrics["val/loss"].item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_rebuilt_from_its_record(teacher):
    for module in (ConsistencyDistillation(str(teacher), levels=5), trained_on_data()):
        record = json.loads(json.dumps(records.record_of(module)))
        again = records.rebuild(record)
        assert records.record_of(again) == record
        assert again.levels_now == module.levels_now
