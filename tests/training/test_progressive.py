"""Progressive distillation: stages follow from images, resume is exact, a student does what its teacher does."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.denoisers import GaussianDenoiser
from repro.errors import UserError
from repro.kernels import VP
from repro.metrics.functional import reproducibility_score
from repro.networks.mlp import MLP
from repro.noise import NoiseStream, draw_noise
from repro.parameterizations import X0, EDMPreconditioning, V
from repro.records import record_of
from repro.samplers.euler import Euler
from repro.times import LogNormalTimes
from repro.training.callbacks import RunCheckpoint
from repro.training.diffusion import Diffusion
from repro.training.progressive import ProgressiveDistillation
from repro.training.trainer import Trainer


def trainer(folder, steps, **settings):
    arguments = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(max_steps=steps, default_root_dir=folder, **(arguments | settings))


def teacher(num_classes=0, kernel=None, **settings):
    """A diffusion model with random weights everywhere, as if it were trained."""
    torch.manual_seed(5)
    network = MLP(8, 1, num_classes, **({"width": 16, "depth": 1} | settings))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Diffusion(network, kernel or VP(), V(), Euler(8))


def student(given=None, start=4, end=1, images=24, **settings):
    arguments = {"lr": 1e-3, "ema_halflife": 50} | settings
    return ProgressiveDistillation(given or teacher().average, start, end, images, **arguments)


def state(path):
    checkpoint = read_checkpoint(path)
    slots = checkpoint["optimizer_states"][0]["state"]
    optimizer = {f"optimizer.{i}.{key}": value for i, each in slots.items() for key, value in each.items()}
    seen = {"images_seen": checkpoint["repro"]["training"]["images_seen"], "step": checkpoint["global_step"]}
    return {**checkpoint["state_dict"], **optimizer, **{key: torch.tensor(value) for key, value in seen.items()}}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, different


@pytest.mark.parametrize("at", [2, 3, 4, 8])
def test_stopped_inside_or_at_the_end_of_a_stage_and_resumed_equals_uninterrupted(tmp_path, at):
    """Stages of 20 images are not a whole number of steps of 8: they end after 3, 5 and 8 steps."""
    data, keeps = {"batch_size": 8}, RunCheckpoint(every_n_steps=1, keep=True)
    whole, again = tmp_path / "whole", tmp_path / "again"
    trainer(whole, 10, callbacks=[keeps]).fit(student(images=20, lr_warmup=32), datamodule=Digits(**data))
    torch.manual_seed(99)
    resumed = student(images=20, lr_warmup=32)
    trainer(again, 10).fit(
        resumed, datamodule=Digits(**data), ckpt_path=whole / "checkpoints" / f"step={at}.ckpt", weights_only=True
    )
    assert_equal(state(whole), state(again))


class Watch(Callback):
    """Keeps, after every step, the stage, the sampler's steps, the learning rate and the weights."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        optimizer = trainer.optimizers[0]
        parts = {
            part: [p.detach().clone() for p in getattr(pl_module, part).parameters()]
            for part in ("trained", "average", "predecessor")
        }
        facts = (pl_module.stage, pl_module.sampler.steps, optimizer.param_groups[0]["lr"], len(optimizer.state))
        self.seen.append((*facts, parts))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_stage_hands_its_average_over(tmp_path):
    watch, model = Watch(), student(images=24, lr=1e-2)
    assert model.halving.stages == 3
    trainer(tmp_path, 11, callbacks=[watch]).fit(model, datamodule=Digits(batch_size=8))
    stages, steps, rates, slots, parts = zip(*watch.seen, strict=True)
    assert stages == (0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2)
    assert steps == (4, 4, 2, 2, 2, 1, 1, 1, 1, 1, 1)
    assert rates == pytest.approx([1e-2 * part for part in (1, 2 / 3, 1 / 3, 1, 2 / 3, 1 / 3, 1, 0.8, 0.6, 0.4, 0.2)])
    count = len(list(model.trained.parameters()))
    assert slots == (count, count, 0, count, count, 0, count, count, count, count, count)
    for step in (2, 5):
        assert same(parts[step]["trained"], parts[step]["average"])
        assert same(parts[step]["predecessor"], parts[step]["average"])
        assert not same(parts[step - 1]["predecessor"], parts[step]["predecessor"])
        assert not same(parts[step + 1]["trained"], parts[step + 1]["average"])
        assert same(parts[step + 1]["predecessor"], parts[step]["predecessor"])


def test_the_average_begins_with_the_stage(tmp_path):
    """With a ramp-up of 5 % of the stage's 8 images, the first step of a stage leaves 2^-20 of the weights before."""
    watch = Watch()
    trainer(tmp_path, 4, callbacks=[watch]).fit(student(images=16, start=2, lr=1e-2), datamodule=Digits(batch_size=8))
    first, last = watch.seen[2][-1], watch.seen[3][-1]
    for average, trained in zip(first["average"], first["trained"], strict=True):
        torch.testing.assert_close(average, trained, rtol=0, atol=1e-7)
    keep = 2 ** (-8 / (0.05 * 16))
    for before, after, trained in zip(first["average"], last["average"], last["trained"], strict=True):
        torch.testing.assert_close(after, keep * before + (1 - keep) * trained, rtol=0, atol=1e-6)


def test_a_finished_student_needs_no_teacher_and_draws_in_its_steps(tmp_path):
    given = tmp_path / "teacher"
    trainer(given, 2).fit(teacher(), datamodule=Digits(batch_size=8))
    model = student(str(given), start=4, end=2, images=16)
    trainer(tmp_path / "student", 4).fit(model, datamodule=Digits(batch_size=8))
    drawn = model.model.sample(range(5))
    given.rename(tmp_path / "gone")
    loaded = load_model(tmp_path / "student")
    assert torch.equal(loaded.sample(range(5)), drawn)
    sampler = {"steps": 2, "spacing": "time_uniform", "t_end": 0.5, "final_denoise": True}
    assert loaded.sampler_record()["args"].items() >= sampler.items()
    assert loaded.fingerprint() == model.model.fingerprint()
    with pytest.raises(UserError, match="teacher: no checkpoint at"):
        trainer(tmp_path / "other", 4).fit(student(str(given)), datamodule=Digits(batch_size=8))


def test_an_unfinished_student_draws_in_the_steps_of_its_stage(tmp_path):
    keeps = RunCheckpoint(every_n_steps=1, keep=True)
    trainer(tmp_path, 9, callbacks=[keeps]).fit(student(), datamodule=Digits(batch_size=8))
    steps = [load_model(tmp_path / "checkpoints" / f"step={step}.ckpt").sampler.steps for step in (1, 3, 6, 9)]
    assert steps == [4, 2, 1, 1]


def test_the_student_trains_where_it_samples():
    """The times that the network is asked about in training are, to the bit, those of its sampler."""
    asked = []
    model = student(start=8, end=8)
    model.trained.network.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    model.loss_at(model.trained, torch.zeros(8, 1, 8, 8), torch.zeros(8, 1, 8, 8), torch.arange(8))
    model.average.network.register_forward_pre_hook(lambda _, given: asked.append(given[1][:1]))
    model.model.generate(NoiseStream([0]))
    assert torch.equal(asked[0], torch.cat(asked[1:]))


def test_the_loss_is_the_weighted_error_of_the_target():
    source = GaussianDenoiser(VP(), (1, 8, 8), 0.3, 0.5)
    x_0, eps, level = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.arange(4)
    time = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)
    alpha, sigma = (part[:, None, None, None] for part in (VP().alpha(time), VP().sigma(time)))
    snr, losses = (alpha / sigma).square(), {}
    for weighting in ("truncated_snr", "snr_plus_one", "parameterization"):
        model = student(source, 4, 1, network=teacher().average.network, parameterization=V(), weighting=weighting)
        losses[weighting] = model.loss_at(model.trained, x_0, eps, level)
    x_t = alpha * x_0 + sigma * eps
    walk = list(Euler(8, "time_uniform", 0.125).times(VP()).tolist())
    squares = []
    for row in range(4):
        state = x_t[row : row + 1]
        for t, s in zip(walk[2 * row : 2 * row + 2], [*walk, None][2 * row + 1 : 2 * row + 3], strict=True):
            t, s = torch.tensor(t).double(), s if s is None else torch.tensor(s).double()
            denoised = source.denoise(state, t)
            noise = (state - VP().alpha(t) * denoised) / VP().sigma(t)
            state = denoised if s is None else VP().alpha(s) * denoised + VP().sigma(s) * noise
        a_s, s_s = (1.0, 0.0) if s is None else (VP().alpha(s), VP().sigma(s))
        shrink = s_s / sigma[row]
        target = (state - shrink * x_t[row : row + 1]) / (a_s - shrink * alpha[row])
        squares.append((model.trained.denoise(x_t[row : row + 1], time[row]) - target).square().mean())
    squares = torch.stack(squares)
    torch.testing.assert_close(
        losses["truncated_snr"].double(), squares * snr.flatten().clamp(min=1), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(losses["snr_plus_one"].double(), squares * (snr.flatten() + 1), rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["parameterization"], losses["snr_plus_one"], rtol=1e-4, atol=0)


def test_a_trained_student_approaches_the_closed_form():
    """On Gaussian data it draws in two steps about what its teacher draws in four, and not what that draws in two."""
    source, noise = GaussianDenoiser(VP(), (1, 2, 2), 0.3, 0.5), draw_noise(range(500), (1, 2, 2))
    network = MLP(2, 1, width=32, depth=1)
    model = student(source, 2, 2, 1000, network=network, parameterization=EDMPreconditioning())
    optimizer = torch.optim.Adam(model.trained.parameters(), lr=5e-3)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / 300)
        optimizer.zero_grad()
        model.loss(0.3 + 0.5 * torch.randn(64, 1, 2, 2), None).mean().backward()
        optimizer.step()
    four, two = (model.halving.sampler(stage, VP()).sample(source, noise) for stage in (-1, 0))
    found = model.sampler.sample(model.trained, noise)
    errors = [(each - four).square().mean().sqrt().item() for each in (found, two)]
    assert errors[0] < 0.2 * errors[1]


def test_a_student_of_digits_draws_its_teachers_images(tmp_path):
    """In one step what the teacher draws in four, as neither the teacher does nor the student from other noise."""
    network = MLP(8, 1, width=64, depth=1)
    source = Diffusion(network, VP(), EDMPreconditioning(), Euler(4), LogNormalTimes(), lr=3e-3, ema_halflife=5000)
    trainer(tmp_path / "teacher", 160).fit(source, datamodule=Digits(batch_size=64))
    model = student(str(tmp_path / "teacher"), 2, 1, 64 * 60, lr=1e-3, ema_halflife=1000)
    trainer(tmp_path / "student", 120).fit(model, datamodule=Digits(batch_size=64))
    assert model.sampler.steps == 1
    images, drawn = model.model.sample(range(300)), []
    for sampler in (model.halving.sampler(-1, VP()), Euler(1)):
        drawn.append(source.model.sample(range(300), sampler=sampler))
    teachers, undistilled = drawn
    scores = [reproducibility_score(each, teachers, 0.95) for each in (images, undistilled, images.roll(1, 0))]
    assert scores[0] > 0.9
    assert scores[1] < 0.3
    assert scores[2] < 0.03


def test_students_of_a_conditional_teacher_and_of_formulas(tmp_path):
    model = student(teacher(num_classes=10).average)
    trainer(tmp_path / "a", 9).fit(model, datamodule=Digits(batch_size=8))
    assert model.model.sample([1, 2], torch.tensor([3, 4])).shape == (2, 1, 8, 8)
    network = MLP(8, 1, width=16, depth=1)
    source = GaussianDenoiser(VP(), (1, 8, 8))
    model = student(source, network=network, parameterization=X0(), compile=False, weighting="snr_plus_one")
    trainer(tmp_path / "b", 9).fit(model, datamodule=Digits(batch_size=8, holdout=16))
    loaded = load_model(tmp_path / "b")
    assert record_of(load_training(tmp_path / "b")) == record_of(model)
    assert record_of(loaded) == record_of(model.model)
    assert torch.equal(loaded.sample([1]), model.model.sample([1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"end": 3}, "end_steps 3 is not reached by halving start_steps 4; halving reaches 4, 2, 1"),
        ({"images": 0}, "stage_images is 0"),
        ({"weighting": "truncated"}, "unknown weighting 'truncated'; did you mean 'truncated_snr'"),
        ({"spacing": "uniform"}, "unknown spacing 'uniform'"),
        ({"t_end": 3.0}, "t_end is 3; times of VP lie between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        student(**settings)


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [
        ({}, 8, "3 stages of stage_images 24 need 72 images, .* 64 .*--trainer.max_steps 9"),
        ({"images": 7}, 9, "stage_images is 7, less than one step's 8"),
    ],
)
def test_runs_that_do_not_fit_the_stages_are_refused_before_they_start(tmp_path, settings, steps, message):
    with pytest.raises(UserError, match=message):
        trainer(tmp_path / "a", steps).fit(student(**settings), datamodule=Digits(batch_size=8))
    assert not (tmp_path / "a").exists()
