"""Do different generative models learn the same thing?

Train, import and sample any family of image models from the same numbered noises, and measure how alike they are and
how much they memorise. In all of it :math:`x_t = \\alpha_t x_0 + \\sigma_t \\epsilon`, and time runs from the data
(``t_min``) to the noise (``t_max``); images are floats in [-1, 1] inside, uint8 on the disk and in scores.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Bank",
    "NoiseStream",
    "Trainer",
    "UserError",
    "build",
    "compare",
    "draw_noise",
    "load",
    "names",
    "sample",
]

_HOMES = {
    "Bank": "repro.banks.bank:Bank",
    "NoiseStream": "repro.noise:NoiseStream",
    "Trainer": "repro.training.trainer:Trainer",
    "UserError": "repro.errors:UserError",
    "build": "repro.registry:build",
    "compare": "repro.comparison:compare",
    "draw_noise": "repro.noise:draw_noise",
    "load": "repro.checkpoints.load:load",
    "names": "repro.registry:names",
    "sample": "repro.drawing.sampling:sample",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'repro' has no attribute {name!r}")
    module, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
