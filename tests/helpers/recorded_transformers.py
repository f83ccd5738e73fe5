"""Recorded answers of the public transformer implementations, and the weights and inputs that belong to them.

`tests/oracles/transformers/README.md` says how they were made. Weights and inputs are drawn from their names.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "oracles" / "transformers"


def cases() -> dict[str, dict]:
    return json.loads((FOLDER / "cases.json").read_text())


def outputs() -> dict[str, Tensor]:
    return load_file(FOLDER / "outputs.safetensors")


def normal(name: str, shape: list[int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=torch.float64)


def weight(name: str, shape: list[int]) -> Tensor:
    """A foreign parameter; patches and positions are so weak that the first norms see their eps."""
    values = normal(name, shape)
    if len(shape) == 1:
        return values * 0.2 + ("norm" in name and name.endswith("weight"))
    weak = "pos_embed" in name or "embed.proj" in name or "embedder.proj" in name
    return values * (0.02 if weak else 0.7 / math.sqrt(math.prod(shape[1:])))


def foreign(case: dict) -> dict[str, Tensor]:
    return {
        name: weight(re.sub(r"^final_layer[.]\d", "final_layer.0", name), shape)
        for name, shape in case["shapes"].items()
    }


def inputs(case: dict) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, noise levels and labels."""
    levels = torch.tensor(case["noise_level"], dtype=torch.float64)
    channels, size = case["image"]
    classes = case["num_classes"]
    return (
        normal("x", [len(levels), channels, size, size]),
        levels,
        torch.arange(len(levels)) % classes if classes else None,
    )
