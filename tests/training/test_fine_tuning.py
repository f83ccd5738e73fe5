"""Fine-tuning: what is frozen keeps every bit, the rest is trained as from scratch, checkpoints stand alone."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from repro import records
from repro.checkpoints.loading import load_model
from repro.checkpoints.native import read_checkpoint, training_record
from repro.data.digits import Digits
from repro.errors import UserError
from repro.images import to_float
from repro.kernels import EDM
from repro.networks.mlp import MLP
from repro.networks.song_unet import SongUNet
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes
from repro.training.chosen import chosen_parameters
from repro.training.diffusion import Diffusion
from repro.training.fine_tuning import FineTuning
from repro.training.trainer import Trainer

UNET = {"width": 8, "channel_mult": [1, 1], "num_blocks": 1, "attention_at": [4], "dropout": 0.5}
HEAD = "decoder.levels.1.head.conv.weight"
TRAINING = {"lr": 1e-2, "ema_halflife": 200, "optimizer": "AdamW", "optimizer_args": {"weight_decay": 0.5}}


def fit(folder, model, steps=3, ckpt_path=None, data=None, **settings):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(max_steps=steps, default_root_dir=folder, **quiet, **settings)
    trainer.fit(model, datamodule=data or Digits(batch_size=8, subset=20), ckpt_path=ckpt_path)
    return model


def from_scratch(network):
    return Diffusion(network, EDM(), EDMPreconditioning(), Heun(3), LogNormalTimes(), **TRAINING)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run of a U-Net with dropout; in its average one weight outside the attention layers is a negative zero."""
    folder = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    model = from_scratch(SongUNet(8, 1, **UNET))
    fit(folder, model)
    model.average.network.get_parameter(HEAD).view(-1)[0] = -0.0
    model.trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return str(folder)


def bits(module):
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: value.detach().clone().view(torch.int32) for name, value in found.items()}


def test_frozen_parameters_keep_every_bit_under_weight_decay_and_averaging(start, tmp_path):
    model = FineTuning(start, **TRAINING)
    chosen = chosen_parameters(model.trained.network, "attention")
    before = bits(model.trained.network)
    assert torch.equal(before[HEAD].view(-1)[:1], torch.tensor([-0.0]).view(torch.int32))
    fit(tmp_path, model, 6)
    (groups,) = [group["params"] for group in model.trainer.optimizers[0].param_groups]
    trained = {name for name, p in model.trained.network.named_parameters() if any(p is each for each in groups)}
    assert trained == chosen
    assert len(read_checkpoint(tmp_path)["optimizer_states"][0]["state"]) == len(chosen)
    for denoiser in (model.trained, model.average):
        after = bits(denoiser.network)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == chosen
    assert all(p.requires_grad == (name in chosen) for name, p in model.trained.network.named_parameters())
    assert all(p.grad is None for name, p in model.trained.network.named_parameters() if name not in chosen)


def test_training_all_parameters_is_training_from_scratch_from_there(start, tmp_path):
    scratch = from_scratch(load_model(start).denoiser.network.requires_grad_(True))
    fit(tmp_path / "scratch", scratch.train())
    tuned = fit(tmp_path / "tuned", FineTuning(start, "all", **TRAINING))
    for name in ("trained", "average"):
        one, other = (getattr(model, name).state_dict() for model in (scratch, tuned))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_stopped_and_resumed_equals_uninterrupted(start, tmp_path):
    patterns = ["*attention*", "*head*"]
    fit(tmp_path / "whole", FineTuning(start, patterns, **TRAINING), 6)
    fit(tmp_path / "halves", FineTuning(start, patterns, **TRAINING), 3)
    last = tmp_path / "halves" / "checkpoints" / "last.ckpt"
    fit(tmp_path / "halves", FineTuning(start, patterns, **TRAINING), 6, last)
    one, other = (read_checkpoint(tmp_path / name) for name in ("whole", "halves"))
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    for key, slots in one["optimizer_states"][0]["state"].items():
        assert all(
            torch.equal(value, other["optimizer_states"][0]["state"][key][name]) for name, value in slots.items()
        )


def test_a_checkpoint_is_rebuilt_resumed_and_sampled_without_the_start(start, tmp_path):
    shutil.copytree(start, tmp_path / "start")
    model = fit(tmp_path / "run", FineTuning(str(tmp_path / "start"), sampler=Heun(2), **TRAINING))
    shutil.rmtree(tmp_path / "start")
    found = load_model(tmp_path / "run")
    assert torch.equal(found.sample(range(4)), model.model.sample(range(4)))
    assert (found.sampler.steps, type(found.times).__name__) == (2, "LogNormalTimes")
    again = records.rebuild(training_record(read_checkpoint(tmp_path / "run")))
    assert again.images_seen == 0
    fit(tmp_path / "run", again, 4, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert again.images_seen == 32


def test_what_is_left_out_is_the_starts(start):
    model, before = FineTuning(start), load_model(start)
    assert all(
        records.record_of(getattr(model.trained, part)) == records.record_of(getattr(before.denoiser, part))
        for part in ("network", "kernel", "parameterization")
    )
    weights = before.denoiser.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.trained.state_dict().items())


class Normalised(MLP):
    """An MLP on images that a batch normalisation has seen."""

    def __init__(self):
        super().__init__(8, 1, width=8, depth=1)
        self.zoom = nn.BatchNorm2d(1)

    def forward(self, x, noise_level, labels=None):
        return super().forward(self.zoom(x), noise_level, labels)


@pytest.mark.parametrize(("patterns", "moves"), [(["*.weight", "*.bias"], True), (["[!z]*"], False)])
def test_running_statistics_move_with_their_layer_only(patterns, moves):
    torch.manual_seed(0)
    parts = {"kernel": EDM(), "parameterization": EDMPreconditioning(), "sampler": Heun(3), "times": LogNormalTimes()}
    model = FineTuning("never read", patterns, Normalised(), **parts, **TRAINING)
    before, optimizer = copy.deepcopy(model.trained), model.configure_optimizers()
    for images in Digits().images().split(8)[:3]:
        model.train().loss(to_float(images), None).mean().backward()
        optimizer.step()
        model.update_average(8)
    for denoiser in (model.trained, model.average):
        for name, value in denoiser.network.zoom.state_dict().items():
            assert torch.equal(value, before.network.zoom.state_dict()[name]) != moves
    assert any(not torch.equal(p, q) for p, q in zip(model.trained.parameters(), before.parameters(), strict=True))


def test_a_given_network_takes_the_starts_weights(start, tmp_path):
    network = SongUNet(8, 1, **UNET | {"dropout": 0.0})
    model = fit(tmp_path, FineTuning(start, network=network, **TRAINING))
    frozen = model.average.network.state_dict()[HEAD]
    assert torch.equal(frozen, load_model(start).denoiser.network.state_dict()[HEAD])
    with pytest.raises(UserError, match=r"start .* does not fit the model"):
        fit(tmp_path, FineTuning(start, network=SongUNet(8, 1, **UNET | {"width": 16}), **TRAINING))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("*atention*", "no parameter matches '\\*atention\\*'; did you mean attention?"),
        (["*head*", "*.qvk.*"], "no parameter matches '\\*.qvk.\\*'; names near it: .*qkv"),
        ([], "empty list"),
        ("xyz", "no parameter matches 'xyz'; names are such as "),
    ],
)
def test_patterns_that_match_nothing(start, parameters, told):
    with pytest.raises(UserError, match=told):
        FineTuning(start, parameters)


def test_networks_without_attention():
    with pytest.raises(UserError, match=r"this MLP has none; type --model.parameters all, or patterns"):
        chosen_parameters(MLP(8, 1, width=8, depth=1), "attention")


def test_data_of_another_shape(start, tmp_path):
    with pytest.raises(UserError, match="the start is for images 1x8x8, Digits has 1x16x16"):
        fit(tmp_path, FineTuning(start, **TRAINING), data=Digits(resize=16))
