"""The first format of checkpoints, in which a model was the module that trained it: brought to the second."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn

from repro.models.base import add_tensor

__all__ = ["former_fingerprint", "in_format_2"]

_OF_MODEL = ("data", "data_fingerprint")


def in_format_2(checkpoint: dict[str, Any], averaged: str) -> None:
    """Rearranges a checkpoint of the first format in place; one of the second stays as it is.

    Args:
        checkpoint: Its ``repro.model`` is the record of the training module, whose averaged weights are ``average.*``.
        averaged: Name of the part of the module's model that is this average now.
    """
    old = checkpoint["repro"]
    if old["format"] != 1:
        return
    progress = {key: value for key, value in old.items() if key not in (*_OF_MODEL, "format", "model", "imported")}
    checkpoint["repro"] = {
        "format": 2,
        "model": {"averaged": averaged, **{key: old[key] for key in _OF_MODEL}},
        "training": {"record": old["model"], **progress},
        **({"imported": old["imported"]} if "imported" in old else {}),
    }
    checkpoint["state_dict"] = {
        f"model.{averaged}.{name.removeprefix('average.')}" if name.startswith("average.") else name: tensor
        for name, tensor in checkpoint["state_dict"].items()
    }


def former_fingerprint(record: dict[str, Any], module: nn.Module, averaged: str) -> str:
    """Hashes a model as banks of the first format do: over its record and all weights, trained and averaged.

    Args:
        record: The record of the training module, as the checkpoint has it.
        module: The training module, with the checkpoint's weights.
        averaged: As for :func:`in_format_2`.
    """
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    prefix = f"model.{averaged}."
    named = [*module.named_parameters(), *module.named_buffers()]
    names = {f"average.{name.removeprefix(prefix)}" if name.startswith(prefix) else name: each for name, each in named}
    for name, tensor in sorted(names.items()):
        add_tensor(digest, name, tensor)
    return digest.hexdigest()
