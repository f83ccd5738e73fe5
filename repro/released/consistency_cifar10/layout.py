"""The NCSN++ of openai/consistency_models_cifar10 (``jcm/models/ncsnpp.py``), that of score_sde in JAX.

It is shown the noise level as it is; the logarithm is taken before.

Source of names and settings: https://github.com/openai/consistency_models_cifar10; Song et al. 2023, arXiv:2303.01469.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.released.flax_unets import state_dict
from repro.released.song_unets import settings as of_score_sde

__all__ = ["settings", "state_dict"]


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for a configuration of this project.

    Args:
        record: Its parts ``model`` and ``data``, as plain dictionaries.

    Returns:
        ``{"name": "SongUNet", "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: a network or option that is not known, or a missing one.
    """
    built = of_score_sde(record)
    return built | {"args": built["args"] | {"log_noise_level": False}}
