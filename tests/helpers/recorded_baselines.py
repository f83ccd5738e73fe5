"""Recorded answers of the public GAN and VAE implementations, and the weights and inputs that belong to them.

`tests/oracles/baselines/README.md` says how they were made. Weights and inputs are drawn from their names.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "oracles" / "baselines"
BATCH = 3


def cases() -> dict[str, dict]:
    return json.loads((FOLDER / "cases.json").read_text())


def outputs() -> dict[str, Tensor]:
    return load_file(FOLDER / "outputs.safetensors")


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float64)


def uniform(name: str, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float64)


def weight(name: str, shape: list[int]) -> Tensor:
    """A foreign tensor: unit vectors for u and v, pseudo-inputs partly outside [0, 1], else order-one activations."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = normal(name, *shape)
    if name.endswith(("weight_u", "weight_v")):
        return values / values.norm()
    if name == "means.linear.weight":
        return 0.5 + 0.5 * values
    if name.endswith("running_var"):
        return values.square() + 0.1
    if len(shape) == 1:
        return 0.2 * values
    return values / math.sqrt(math.prod(shape[1:]))


def foreign(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: weight(name, shape) for name, shape in shapes.items()}
