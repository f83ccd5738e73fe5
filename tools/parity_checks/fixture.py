"""What the parity checks share: fixture folders, compared outputs, and denoisers that remember their calls."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from repro.denoisers import Denoiser

__all__ = ["Check", "Fixture", "Recorded", "Watched"]


@dataclass(frozen=True)
class Check:
    """One compared output: its largest error, and that as a part of what is allowed (at most 1 passes)."""

    name: str
    error: float
    part: float

    @property
    def passed(self) -> bool:
        return self.part <= 1


class Fixture:
    """A folder of recorded inputs and outputs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.meta = folder, json.loads((folder / "meta.json").read_text())

    @cached_property
    def io(self) -> dict[str, Tensor]:
        return load_file(self.folder / "io.safetensors")

    def compare(self, name: str, ours: Tensor) -> Check:
        theirs = self.io[name].double()
        if ours.shape != theirs.shape:
            return Check(name, math.inf, math.inf)
        limits = self.meta["tolerance"]["per_output"].get(name, {"atol": 1e-6, "rtol": 1e-5})
        error = (ours.double() - theirs).abs()
        part = torch.where(error == 0, 0.0, error / (limits["atol"] + limits["rtol"] * theirs.abs()))
        return Check(name, error.max().item(), part.nan_to_num(math.inf).max().item())


class Watched(Denoiser):
    """A denoiser that remembers the time of each call."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.kernel, self.times = denoiser, denoiser.kernel, []
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.times.append(t.item())
        return self.denoiser.denoise(x_t, t, labels)

    def ratios(self) -> Tensor:
        return self.kernel.ratio(torch.tensor(self.times, dtype=torch.float64))


class Recorded:
    """Stands for a noise stream: gives recorded noises, one after the other."""

    def __init__(self, *noises: Tensor) -> None:
        self.noises = list(noises)

    def draw(self, shape: Any) -> Tensor:
        return self.noises.pop(0)
