"""A run and a bank of the first format, written by the version before models and trainings were parted, go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainings import trainer

import repro
from repro.banks import Bank
from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.drawing import draw
from repro.errors import UserError
from repro.records import rebuild

OLD = Path(__file__).parents[1] / "oracles" / "format1"


@pytest.fixture
def one_thread():
    """The stored weights came of one thread, and sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_model_draws_the_bank_of_that_time(tmp_path, one_thread):
    model = repro.load(OLD / "run")
    assert type(model).__name__ == "DenoisingModel"
    assert model.former_fingerprint == Bank.open(OLD / "bank").manifest.model_fingerprint
    assert torch.equal(draw(model, "0-7", shard_size=4).images, Bank.open(OLD / "bank").images)


def test_a_bank_of_that_time_is_continued(tmp_path, one_thread):
    shutil.copytree(OLD / "bank", tmp_path / "bank")
    last = tmp_path / "bank" / "images-00000001.npy"
    expected = np.load(last)
    last.unlink()
    assert draw(OLD / "run", "0-7", output=tmp_path / "bank").complete
    assert np.array_equal(np.load(last), expected)
    with pytest.raises(UserError, match="holds a bank of other samples"):
        draw(OLD / "run", "0-7", output=tmp_path / "bank", weights="raw")


def test_training_goes_on_to_the_same_weights_and_into_the_second_format(tmp_path, one_thread):
    module, path = load_training(OLD / "run"), OLD / "run" / "checkpoints" / "last.ckpt"
    assert module.images_seen == 96
    data = rebuild(module.model.data_record)
    again = rebuild(read_checkpoint(path)["repro"]["model"])
    trainer(tmp_path, 12).fit(again, datamodule=data, ckpt_path=path)
    written = read_checkpoint(tmp_path)
    assert (written["repro"]["format"], written["repro"]["training"]["images_seen"]) == (2, 192)
    expected = load_file(OLD / "after_12_steps.safetensors")
    for name, tensor in expected.items():
        now = name.replace("average.", "model.denoiser.", 1) if name.startswith("average.") else name
        assert torch.equal(written["state_dict"][now], tensor), name
    raw, trained = load_model(tmp_path, weights="raw"), again.trained.state_dict()
    assert all(torch.equal(each, trained[name]) for name, each in raw.denoiser.state_dict().items())
