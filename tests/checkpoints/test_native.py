"""A checkpoint of anybody: its form is checked before anything is built, and it takes no more than its weights."""

from __future__ import annotations

import copy

import pytest
import torch
from commands import run_here

from repro.checkpoints.allowance import Allowance
from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint after one step."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["--config", "digits/mlp_edm", "--model.network.width", "16", "--trainer.max_steps", "1"]
    done = run_here("fit", *words, "--data.batch_size", "8", "--trainer.logger", "false", "--output", str(folder))
    assert done.code == 0, done
    return read_checkpoint(folder)


def _network(model):
    return model["record"]["args"]["network"]["args"]


CHANGES = {
    "no record": lambda c: c["repro"]["model"].clear(),
    "record of another group": lambda c: c["repro"]["model"]["record"].update(group="kernels", name="VP", args={}),
    "unknown part": lambda c: c["repro"]["model"].update(more=1),
    "width is text": lambda c: _network(c["repro"]["model"]).update(width="x"),
    "width beyond the weights": lambda c: _network(c["repro"]["model"]).update(width=40_000),
    "width beyond any memory": lambda c: _network(c["repro"]["model"]).update(width=1 << 40),
    "depth without end": lambda c: _network(c["repro"]["model"]).update(depth=10_000_000),
    "no sampler": lambda c: c["repro"]["model"]["record"]["args"].update(sampler=None),
    "a kernel for a network": lambda c: c["repro"]["model"]["record"]["args"].update(
        network={"group": "kernels", "name": "VP", "args": {}}
    ),
    "weights are a number": lambda c: c.update(state_dict=3),
    "a weight is a number": lambda c: c["state_dict"].update({"model.denoiser.more": 3}),
    "imported from nowhere": lambda c: c["repro"].update(imported={}),
    "data is text": lambda c: c["repro"]["model"].update(data="Digits"),
    "fingerprint is a number": lambda c: c["repro"]["model"].update(data_fingerprint=3),
    "training is a list": lambda c: c["repro"].update(training=[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_record_is_one_line(checkpoint, tmp_path, change):
    damaged = copy.deepcopy(checkpoint)
    CHANGES[change](damaged)
    torch.save(damaged, tmp_path / "x.ckpt")
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "x.ckpt")
    assert "\n" not in str(caught.value)


def test_what_is_trained_on_is_bounded_too(checkpoint, tmp_path):
    damaged = copy.deepcopy(checkpoint)
    damaged["repro"]["training"]["record"]["args"]["network"]["args"]["width"] = 40_000
    torch.save(damaged, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="describes a model much larger than its weights"):
        load_training(tmp_path / "x.ckpt")


def test_a_checkpoint_reaches_nothing_outside(checkpoint, tmp_path):
    model = {"group": "models", "name": "TextToImage", "args": {"pipeline": "somebody/model", "prompt": "a cat"}}
    damaged = copy.deepcopy(checkpoint)
    damaged["repro"]["model"]["record"] = model
    torch.save(damaged, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="TextToImage names pipeline 'somebody/model', outside of the file"):
        load_model(tmp_path / "x.ckpt")


def test_an_allowance_counts_what_is_made(checkpoint):
    with Allowance([torch.zeros(10)], "x"):
        for _ in range(3):
            torch.zeros(16 << 20)
        with pytest.raises(UserError, match="x: its record"):
            torch.empty(20 << 20)
