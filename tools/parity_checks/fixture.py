"""What the parity checks share: fixture folders, compared outputs, and denoisers that remember their calls."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from repro import registry
from repro.denoisers import Denoiser
from repro.errors import UserError

__all__ = ["Check", "Fixture", "Recorded", "Watched"]


@dataclass(frozen=True)
class Check:
    """One compared output.

    Attributes:
        name: The output's name.
        error: Its largest error.
        allowed: The tolerance at the place of the largest error.
        part: The largest error as a part of what is allowed at its place; at most 1 passes.
    """

    name: str
    error: float
    allowed: float
    part: float

    @property
    def passed(self) -> bool:
        return self.part <= 1


class Fixture:
    """A folder of recorded inputs and outputs; nothing but its ``meta.json`` says what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.meta = folder, json.loads((folder / "meta.json").read_text())

    @property
    def name(self) -> str:
        return self.meta.get("name", self.folder.name)

    @property
    def settings(self) -> dict[str, Any]:
        return self.meta["constructor_kwargs"] if "constructor_kwargs" in self.meta else self.meta["settings"]

    @cached_property
    def io(self) -> dict[str, Tensor]:
        return load_file(self.folder / "io.safetensors")

    @property
    def limits(self) -> dict[str, dict[str, float]]:
        """Tolerances of the outputs: absolute and relative."""
        tolerance = self.meta.get("tolerance", {})
        return tolerance.get("per_output", {}) if "settings" not in self.meta else tolerance

    @property
    def outputs(self) -> set[str]:
        """Names of the outputs that the fixture gives a tolerance for."""
        return set(self.limits)

    def weights(self, file: str = "weights") -> dict[str, Tensor]:
        return load_file(self.folder / f"{file}.safetensors")

    def classes(self, name: str = "class_labels") -> Tensor | None:
        """Class numbers of an input that holds numbers or one-hot rows; None where it is not there."""
        given = self.io.get(name)
        return given.argmax(1) if given is not None and given.ndim == 2 else given

    def network(self, layout: ModuleType, record: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
        """Our network for a constructor record, with the fixture's weights read through a layout, for evaluation."""
        settings = layout.settings(record)
        network = registry.build("networks", settings["name"], **settings["args"])
        network.load_state_dict(layout.state_dict(self.weights(), network))
        return network.to(dtype).eval()

    def beside(self, name: str) -> Fixture:
        """The fixture of that name in a folder beside this one."""
        for folder in sorted(self.folder.resolve().parent.glob("*/meta.json"), key=lambda p: p.parent.name != name):
            other = Fixture(folder.parent)
            if other.name == name:
                return other
        raise UserError(f"{self.name} needs the fixture {name!r} in a folder beside it; there is none")

    def compare(self, name: str, ours: Tensor) -> Check:
        theirs, ours = self.io[name].double(), ours.detach().double()
        if ours.shape != theirs.shape:
            return Check(name, math.inf, 0.0, math.inf)
        limits = self.limits.get(name, {"atol": 1e-6, "rtol": 1e-5})
        error, allowed = (ours - theirs).abs().flatten(), (limits["atol"] + limits["rtol"] * theirs.abs()).flatten()
        part, place = torch.where(error == 0, 0.0, error / allowed).nan_to_num(math.inf), error.argmax()
        return Check(name, error[place].item(), allowed[place].item(), part.max().item())

    def compare_all(self, ours: Mapping[str, Tensor]) -> Iterator[Check]:
        """Checks of those outputs that the fixture holds; a single number may come in any shape."""
        for name, tensor in ours.items():
            if name in self.io:
                single = tensor.numel() == 1 == self.io[name].numel()
                yield self.compare(name, tensor.reshape(self.io[name].shape) if single else tensor)

    def compare_averaged(self, ours: list[str]) -> Check:
        """A check of the names of the averaged tensors, in order; its error is the number of places that differ."""
        theirs = [name.removeprefix("module.") for name in self.meta["shadow_params_order"]]
        wrong = sum(a != b for a, b in itertools.zip_longest(ours, theirs))
        return Check("shadow_params_order", float(wrong), 0.0, math.inf if wrong else 0.0)


class Watched(Denoiser):
    """A denoiser that remembers the time of each call."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.kernel, self.times = denoiser, denoiser.kernel, []
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.times.append(t.max().item())
        return self.denoiser.denoise(x_t, t, labels)

    def ratios(self) -> Tensor:
        return self.kernel.ratio(torch.tensor(self.times, dtype=torch.float64))


class Recorded:
    """Stands for a noise stream: gives recorded noises, one after the other."""

    def __init__(self, *noises: Tensor) -> None:
        self.noises = list(noises)

    def draw(self, shape: Any) -> Tensor:
        return self.noises.pop(0)
