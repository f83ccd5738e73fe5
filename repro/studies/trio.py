"""Three architectures that studies look into: those of figure 7, or three small ones on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from repro.studies.base import Scale
from repro.studies.jobs import Job
from repro.studies.systems import SYSTEMS, configs_folder, fit_job

__all__ = ["DATA", "trio", "trio_jobs"]

DATA = {"tiny": "Digits", "small": "CIFAR10", "paper": "CIFAR10"}
"""What the three are trained on."""


class _Trained(NamedTuple):
    name: str
    configs: tuple[str, ...]
    seconds: float


_DIGITS = (("mlp_edm", 45.0), ("ddpmpp_vp", 90.0), ("uvit_flow", 110.0))
_PAPER = ("EDMv1", "DDPMv6", "Multistagev1")


def trio(scale: Scale) -> list[str]:
    """Names of the three systems."""
    return [each.name for each in _trained(scale)]


def trio_jobs(folder: Path, scale: Scale) -> list[Job]:
    """The jobs ``fit_NAME`` that train them."""
    configs = configs_folder()
    return [
        fit_job(folder, each.name, [configs / f"{config}.yaml" for config in each.configs], seconds=each.seconds)
        for each in _trained(scale)
    ]


def _trained(scale: Scale) -> list[_Trained]:
    if scale == "tiny":
        return [_Trained(name, (f"digits/{name}",), seconds) for name, seconds in _DIGITS]
    overlay, seconds = (("small/cifar",), 3600.0) if scale == "small" else ((), 250_000.0)
    return [_Trained(name, (SYSTEMS[name].config, *overlay), seconds) for name in _PAPER]
