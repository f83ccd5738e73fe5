"""Networks `F(x, noise_level, labels)`: they know images and noise levels, nothing of kernels, losses or samplers."""

from __future__ import annotations

import importlib
from typing import Any

from repro.networks.base import Network

__all__ = ["ADM", "MLP", "DiT", "MultistageUNet", "Network", "SongUNet", "UViT"]

_HOMES = {
    "ADM": "adm",
    "DiT": "dit",
    "MLP": "mlp",
    "MultistageUNet": "multistage",
    "SongUNet": "song_unet",
    "UViT": "uvit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
