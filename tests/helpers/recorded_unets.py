"""Recorded answers of the public U-Net implementations, and the weights and inputs that belong to them.

`tests/oracles/networks/README.md` says how they were made. Weights and inputs are not stored: they are drawn from their
names, so that a fixture is a list of names and shapes and an output.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "oracles" / "networks"
BATCH = 3


def cases() -> dict[str, dict]:
    return json.loads((FOLDER / "unets.json").read_text())


def outputs() -> dict[str, Tensor]:
    return load_file(FOLDER / "unets.safetensors")


def normal(name: str, shape: list[int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def weight(name: str, shape: list[int]) -> Tensor:
    """A foreign parameter: order-one activations, but every fourth 3 x 3 layer so weak that norms see their eps."""
    values = normal(name, shape)
    if len(shape) == 1:
        return values * 0.2 + (("norm" in name.lower() or "layers.0" in name) and name.endswith("weight"))
    weak = len(shape) == 4 and shape[-1] == 3 and zlib.crc32(name.encode()) % 4 == 0
    fan_in = shape[0] if name.endswith(".W") else math.prod(shape[1:])
    return values * (0.01 if weak else 0.7) / math.sqrt(fan_in)


def foreign(case: dict) -> dict[str, Tensor]:
    return {name: weight(name, shape) for name, shape in case["shapes"].items()}


def inputs(case: dict) -> dict[str, Tensor | None]:
    """What the network is given: x, noise_level, labels, augment_labels."""
    channels, size = case["image"]
    classes, augment = case.get("num_classes", 0), case.get("augment_dim", 0)
    return {
        "x": normal("x", [BATCH, channels, size, size]).double(),
        "noise_level": torch.tensor(case["noise_level"], dtype=torch.float64),
        "labels": torch.arange(BATCH) * 2 % classes if classes else None,
        "augment_labels": normal("augment", [BATCH, augment]).double() if augment else None,
    }
