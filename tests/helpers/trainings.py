"""Short trainings and the state that they leave."""

from __future__ import annotations

import torch

from repro.checkpoints.native import read_checkpoint
from repro.training.trainer import Trainer


def trainer(folder, steps, **settings):
    arguments = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(max_steps=steps, default_root_dir=folder, **(arguments | settings))


def state(folder):
    checkpoint = read_checkpoint(folder)
    return {
        **checkpoint["state_dict"],
        **{
            f"optimizer.{i}.{key}": value
            for i, slots in checkpoint["optimizer_states"][0]["state"].items()
            for key, value in slots.items()
        },
        "images_seen": torch.tensor(checkpoint["repro"]["training"]["images_seen"]),
        "step": torch.tensor(checkpoint["global_step"]),
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, different


def state_of_all(folder):
    checkpoint = read_checkpoint(folder)
    moments = {
        f"optimizer{which}.{i}.{key}": value
        for which, optimizer in enumerate(checkpoint["optimizer_states"])
        for i, slots in optimizer["state"].items()
        for key, value in slots.items()
    }
    images_seen = torch.tensor(checkpoint["repro"]["training"]["images_seen"])
    return {**checkpoint["state_dict"], **moments, "images_seen": images_seen}
