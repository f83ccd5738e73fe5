"""Training of descriptors: views against slow references, losses against loops, resume, and what it may be used for."""

from __future__ import annotations

import math
import sys
from subprocess import run as run_process
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import _all_gather_ddp_if_available
from scipy import fft, ndimage
from torch import distributed, multiprocessing

from repro.analysis.copy_detection import detect_copies
from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.cli.main import main
from repro.data.digits import Digits
from repro.descriptors.small import SmallSSCD
from repro.errors import UserError
from repro.images import to_float
from repro.training.copy_detection import CopyDetection, entropy_losses, info_nce_losses
from repro.training.trainer import Trainer
from repro.training.views import DEFAULTS, blur, checked, compress, crop, edited, overlay, recolour

SIZES = {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "block": "basic", "stem_width": 8, "dims": 16}
STILL = dict.fromkeys(DEFAULTS, 0.0) | {"area": 1.0}


def images(count=5, channels=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64) * 2 - 1


def module(**settings):
    torch.manual_seed(0)
    return CopyDetection(8, 1, **(SIZES | {"entropy": 1.0, "lr": 5e-3, "ema_halflife": 500} | settings))


def fit(folder, model, steps, ckpt_path=None, **data):
    trainer = Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(model, datamodule=Digits(**({"batch_size": 32} | data)), ckpt_path=ckpt_path)
    return folder


def test_blur_is_a_gaussian_filter():
    x, sigma = images(), torch.tensor([0.3, 0.8, 1.0, 1.7, 2.0], dtype=torch.float64)
    expected = [
        ndimage.gaussian_filter(image, (0, s, s), mode="nearest", truncate=3 / s)
        for image, s in zip(x.numpy(), sigma.tolist(), strict=True)
    ]
    torch.testing.assert_close(blur(x, sigma), torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-12)


def test_compression_rounds_cosine_coefficients():
    x, strength = images(2, 1, 16), torch.tensor([0.5, 2.0], dtype=torch.float64)
    table = [16, 11, 10, 16, 24, 40, 51, 61]
    found = compress(x, strength)
    for image, other, factor in zip(x[:, 0].numpy(), found[:, 0].numpy(), strength.tolist(), strict=True):
        for row in (0, 8):
            before = fft.dctn(image[row : row + 8, 8:] * 127.5, norm="ortho")
            after = fft.dctn(other[row : row + 8, 8:] * 127.5, norm="ortho")
            steps = after[0] / (np.array(table) * factor)
            np.testing.assert_allclose(steps, np.round(before[0] / (np.array(table) * factor)), atol=1e-9)


def test_compression_of_other_sizes_keeps_the_size_and_the_mean():
    x = images(3, 3, 13)
    found = compress(x, torch.full((3,), 0.05, dtype=torch.float64))
    assert found.shape == x.shape
    assert (found - x).abs().max() < 0.05


def test_crop_without_change_is_the_identity_and_a_flip_is_a_mirror():
    x = images()
    torch.testing.assert_close(crop(x, 1.0, 0.0, 0.0), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(crop(x, 1.0, 0.0, 1.0), x.flip(3), rtol=0, atol=1e-6)


def test_a_window_of_a_slope_is_a_gentler_slope_inside_it():
    """A window of width w of an image that rises from -1 to 1 rises by 2 w and stays within; a turn tilts it."""
    rising = ((torch.arange(16) + 0.5) / 8 - 1).double().expand(300, 1, 16, 16)
    torch.manual_seed(0)
    found = crop(rising, 0.25, 0.0, 0.0)
    slope = (found[..., 1:] - found[..., :-1])[..., 2:-2] * 8
    torch.testing.assert_close(slope, slope[..., :1].expand_as(slope), rtol=0, atol=1e-5)
    widths = slope[:, 0, 0, 0]
    assert 0.5 <= widths.min() < 0.53
    assert 0.97 < widths.max() <= 1 + 1e-6
    middle = found[:, 0, 0, 7:9].mean(1)
    assert (middle.abs() <= 1 - widths + 1e-5).all()
    assert middle.std() > 0.05
    turned = crop(rising, 1.0, 30.0, 0.0)[:, 0, 4:12, 4:12]
    across, down = turned.diff(dim=2).mean((1, 2)) * 8, turned.diff(dim=1).mean((1, 2)) * 8
    torch.testing.assert_close(across.square() + down.square(), torch.ones(300).double(), rtol=0, atol=1e-5)
    assert torch.atan2(down, across).abs().rad2deg().max() == pytest.approx(30, abs=0.5)


def test_overlay_takes_a_rectangle_in_its_place():
    x, y = images(200, 1, 16), images(200, 1, 16, seed=1)
    torch.manual_seed(0)
    found = overlay(x, y)
    other = found == y
    assert torch.equal(torch.where(other, y, x), found)
    rows, columns = other[:, 0].any(2), other[:, 0].any(1)
    assert torch.equal(other[:, 0], rows[:, :, None] & columns[:, None, :])
    for side in (rows.sum(1), columns.sum(1)):
        assert side.min() >= 4
        assert side.max() <= 9
        assert side.float().std() > 1


def test_colours():
    x = images(4)
    torch.testing.assert_close(recolour(x, 0.0, 0.0), x, rtol=0, atol=1e-6)
    grey = recolour(x, 0.0, 1.0)
    luma = (x * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(x), rtol=0, atol=1e-6)
    neutral = torch.full((4, 3, 2, 2), 0.25, dtype=torch.float64)
    changed = recolour(neutral, 0.4, 0.0)
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), rtol=0, atol=1e-6)


def test_views_are_in_range_and_different_for_every_image():
    x = images(1, 3, 32).float().expand(64, -1, -1, -1)
    torch.manual_seed(0)
    found = edited(x, DEFAULTS)
    assert found.abs().max() <= 1
    gaps = torch.cdist(found.flatten(1), found.flatten(1)) + 99 * torch.eye(64)
    assert gaps.min() > 0.1


def test_settings_at_rest_change_nothing():
    x = images(8, 1, 8).float()
    torch.testing.assert_close(edited(x, STILL), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("views", "word"),
    [({"flips": 0.5}, "did you mean 'flip'"), ({"blur": 1.5}, "from 0 to 1"), ({"area": 0.0}, "from 0.01")],
)
def test_wrong_views_are_one_line(views, word):
    with pytest.raises(UserError, match=word):
        checked(views)


def slow_losses(vectors, temperature):
    """Losses of 2n views, n first and n second, by loops over pairs."""
    count, contrast, entropy = len(vectors), [], []
    for i in range(count):
        other = (i + count // 2) % count
        scores = {j: float(vectors[i] @ vectors[j]) / temperature for j in range(count) if j != i}
        contrast.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[other])
        gaps = [float((vectors[i] - vectors[j]).norm()) for j in range(count) if j not in (i, other)]
        entropy.append(-math.log(min(gaps)))
    return torch.tensor(contrast).double(), torch.tensor(entropy).double()


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_losses_equal_loops(temperature):
    vectors = torch.nn.functional.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(3)).double())
    contrast, entropy = slow_losses(vectors, temperature)
    own = torch.arange(12)
    other = own.roll(6)
    torch.testing.assert_close(
        info_nce_losses(vectors, vectors, own, other, temperature), contrast, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(entropy_losses(vectors, vectors, own, other), entropy, rtol=1e-6, atol=1e-6)
    half = slice(4, 8)
    part = info_nce_losses(vectors[half], vectors, own[half], other[half], temperature)
    torch.testing.assert_close(part, contrast[half], rtol=1e-6, atol=1e-6)


def test_entropy_pushes_nearest_neighbours_apart_and_not_the_two_views():
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    own = torch.arange(4)
    entropy_losses(vectors, vectors, own, own.roll(2)).sum().backward()
    assert vectors.grad[0, 1] > 0
    assert vectors.grad[1, 1] < 0 or vectors.grad[1, 0] > 0


def test_the_loss_of_the_module_is_the_mean_over_both_views():
    model = module(views=STILL | {"noise": 1.0})
    model.eval()
    x = to_float(Digits(subset=6).images())
    torch.manual_seed(5)
    found = model.loss(x, None)
    torch.manual_seed(5)
    vectors = model.trained(edited(torch.cat([x, x]), model.views)).detach().double()
    contrast, entropy = slow_losses(vectors, 0.05)
    expected = (contrast + entropy).view(2, 6).mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path):
    whole = fit(tmp_path / "whole", module(), 6)
    halves = fit(tmp_path / "halves", module(), 3)
    fit(halves, module(), 6, halves / "checkpoints" / "last.ckpt")
    one, other = (read_checkpoint(folder) for folder in (whole, halves))
    assert one["repro"]["training"]["images_seen"] == other["repro"]["training"]["images_seen"] == 6 * 32
    assert [key for key, value in one["state_dict"].items() if not torch.equal(value, other["state_dict"][key])] == []
    states = [each["optimizer_states"][0]["state"] for each in (one, other)]
    assert all(torch.equal(states[0][i][key], states[1][i][key]) for i in states[0] for key in states[0][i])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs") / "short", module(), 60, batch_size=64, holdout=397)


def test_training_teaches_to_find_copies(run, tmp_path):
    held = Digits(holdout=397).held_out()[0]
    untrained = fit(tmp_path, module(), 1, batch_size=2)
    before, after = (detect_copies(SmallSSCD(str(each)), held, 60, ["crop", "noise"]) for each in (untrained, run))
    assert after.precision[-1] > 5 * before.precision[-1]


def test_a_descriptor_of_a_run_uses_the_averaged_weights(run):
    held = Digits(holdout=397).held_out()[0][:9]
    model = load_training(run)
    assert isinstance(model, CopyDetection)
    assert torch.equal(load_model(run)(to_float(held)), model.average(to_float(held)))
    with torch.no_grad():
        expected = model.average(to_float(held))
        assert (model.trained.eval()(to_float(held)) - expected).abs().max() > 1e-3
    torch.testing.assert_close(SmallSSCD(str(run)).features(held), expected, rtol=0, atol=1e-6)


def test_validation_is_repeatable_and_leaves_the_draws_alone(run):
    results, model = [], load_training(run)
    for _ in range(2):
        state = torch.random.get_rng_state()
        trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
        results.append(trainer.validate(model, datamodule=Digits(holdout=64), verbose=False))
        assert torch.equal(state, torch.random.get_rng_state())
    assert results[0] == results[1]
    assert math.isfinite(results[0][0]["val/loss"])


@pytest.mark.parametrize("command", ["predict", "test"])
def test_a_descriptor_draws_nothing(command, run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--ckpt_path", str(run), "--seeds", "0-3"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "CopyDescriptor, which draws no images; use it: repro compare BANK BANK --descriptor SmallSSCD" in told


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"temperature": 0.0}, "temperature"), ({"entropy": -1.0}, "entropy"), ({"block": "wide"}, "bottleneck")],
)
def test_wrong_settings_are_one_line(settings, word):
    with pytest.raises(UserError, match=word):
        module(**settings)


def still_gradients(x_0, world_size=1, rank=0):
    """Gradients of the mean loss of still views, without batch statistics, which each process has of its own."""
    model = module(views=STILL)
    model.trained.backbone.eval()
    if world_size > 1:
        gather = SimpleNamespace(all_gather=_all_gather_ddp_if_available)
        model._trainer = SimpleNamespace(world_size=world_size, global_rank=rank, strategy=gather)
    model.loss(x_0, None).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.trained.parameters()])


def gradients_of_rank(rank, folder, x_0):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    gradients = still_gradients(x_0[rank::2], 2, rank)
    distributed.all_reduce(gradients)
    if not rank:
        torch.save(gradients / 2, folder / "gradients.pt")
    distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    x_0 = images(8, 1, 8).float()
    multiprocessing.spawn(gradients_of_rank, (tmp_path, x_0), nprocs=2)
    shared = torch.load(tmp_path / "gradients.pt")
    torch.testing.assert_close(shared, still_gradients(x_0), rtol=1e-4, atol=1e-6)
    alone = (still_gradients(x_0[::2]) + still_gradients(x_0[1::2])) / 2
    assert (alone - shared).norm() > 0.05 * shared.norm()


def test_two_processes_fit_with_uneven_held_out_images(tmp_path):
    words = ["--data.holdout", "397", "--data.batch_size", "64", "--trainer.max_steps", "2"]
    words += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    words += [f"--model.{name}={value}" for name, value in SIZES.items()]
    command = [sys.executable, "-m", "repro", "fit", "--model", "CopyDetection", "--data", "Digits", *words]
    done = run_process([*command, "--output", str(tmp_path / "run")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "run")["repro"]["training"]["images_seen"] == 128
