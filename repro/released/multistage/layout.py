"""Multistage U-Nets of LucasYFL/Multistage_Diffusion: its forks of EDM and of score_sde.

Source of names and settings: https://github.com/LucasYFL/Multistage_Diffusion; Zhang et al. 2023, arXiv:2312.09181.
Both forks use at most 16 groups in group normalisations (score_sde's by a setting) where their originals use 32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError
from repro.released import song_unets as score_sde
from repro.released.edm import layout as edm
from repro.released.table import Entry, foreign_names, translate

__all__ = ["settings", "shadow_names", "state_dict", "with_shadow"]

_EDM_DEFAULTS = {
    "en_model_channels": 128,
    "de_model_channels": [192, 128, 16],
    "stage_interval": [[[0, 2.5103]], [[2.5103, 7.6577]], [[7.6577, math.inf]]],
}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for a constructor record of either fork.

    Args:
        record: Arguments of an EDM wrapper (with ``model_type``), or a score_sde configuration (``model``, ``data``).

    Returns:
        ``{"name": ..., "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown network or argument, or intervals that leave a gap between stages.
    """
    if "model" not in record:
        return _edm_settings(record)
    model = record["model"]
    if model.get("name") != "ncsnpp_multistage":
        built = score_sde.settings(record)
        return built | {"args": built["args"] | {"max_groups": model.get("group", 32)}}
    try:
        arguments = score_sde.ncsnpp_arguments(record)
        intervals = [[[1000.0 * edge for edge in pair] for pair in stage] for stage in model["stage_interval"]]
        widths = [int(width) for width in model["de_nfs"]]
        own = {"width": model["en_nf"], "decoder_widths": widths, "max_groups": model["group"]}
    except KeyError as error:
        raise UserError(f"the multistage configuration has no entry {error}; give the whole file") from error
    return {"name": "MultistageUNet", "args": arguments | own | _cuts(intervals) | {"share_middle": True}}


def _edm_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    if record.get("model_type") != "MultistageUNet":
        built = edm.settings(record)
        return built | {"args": built["args"] | {"max_groups": 16}}
    own: dict[str, Any] = _EDM_DEFAULTS | {key: value for key, value in record.items() if key in _EDM_DEFAULTS}
    rest = {key: value for key, value in record.items() if key not in own and key != "stage_num"}
    arguments = edm.song_arguments(rest | {"model_type": "SongUNet", "model_channels": own["en_model_channels"]})
    intervals = [
        [[_level(float(low)), float(high)] for low, high in stage] for stage in own["stage_interval"]
    ]  # fmt: skip
    return {
        "name": "MultistageUNet",
        "args": arguments
        | {"decoder_widths": [int(width) for width in own["de_model_channels"]], "max_groups": 16}
        | _cuts(intervals),
    }


def _level(sigma: float) -> float:
    return math.log(sigma) / 4 if sigma > 0 else -math.inf


def _cuts(stages: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Boundaries and decoders for the intervals (low, high] of every stage, in units of the noise level.

    Where intervals overlap the last stage wins, as in the original loop. (The EDM fork compares the upper end, a
    sigma, with the noise level, a quarter of its logarithm; with ascending stages that changes nothing.)
    """
    edges = sorted({edge for stage in stages for pair in stage for edge in pair})
    boundaries: list[float] = []
    decoders: list[int] = []
    for low, high in pairwise(edges):
        inside = [index for index, stage in enumerate(stages) if any(a <= low and high <= b for a, b in stage)]
        if not inside:
            raise UserError(f"no stage covers noise levels from {low:g} to {high:g}; check stage_interval")
        if decoders and decoders[-1] == inside[-1]:
            continue
        if decoders:
            boundaries.append(low)
        decoders.append(inside[-1])
    plain = decoders == list(range(len(stages)))
    return {"boundaries": boundaries, "interval_decoders": None if plain else decoders}


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of either fork into ours.

    Args:
        foreign: Tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    of_edm = any("map_layer0" in name for name in foreign)
    if not hasattr(network, "stages"):
        return (edm if of_edm else score_sde).state_dict(foreign, network)
    if of_edm:
        foreign = {name.removeprefix("model."): tensor for name, tensor in foreign.items()}
        return translate(list(_edm_entries(network)), foreign, network, "multistage EDM", edm.is_constant)
    foreign = {name.removeprefix("module."): tensor for name, tensor in foreign.items()}
    return translate(_score_sde_table(network), foreign, network, "multistage score_sde", lambda name: name == "sigmas")


def shadow_names(network: nn.Module) -> list[str]:
    """As :func:`repro.released.song_unets.shadow_names`, for the score_sde fork."""
    if not hasattr(network, "stages"):
        return score_sde.shadow_names(network)
    return foreign_names(_score_sde_table(network))


def with_shadow(
    foreign: Mapping[str, Tensor], shadow_params: Sequence[Tensor], network: nn.Module
) -> dict[str, Tensor]:
    """As :func:`repro.released.song_unets.with_shadow`, for the score_sde fork."""
    foreign = {name.removeprefix("module."): tensor for name, tensor in foreign.items()}
    return score_sde.replace_shadow(foreign, shadow_params, shadow_names(network))


def _edm_entries(network: nn.Module) -> Iterator[Entry]:
    yield from edm.mapping_entries(network)
    yield from edm.encoder_entries(network)
    for index in range(len(network.stages)):
        yield from edm.middle_entries(network, f"stages.{index}.middle", f"decs.{index}")
        yield from edm.decoder_entries(network, f"stages.{index}.decoder", f"decs.{index}")


def _score_sde_table(network: nn.Module) -> list[Entry]:
    walk = score_sde.Walk("en_modules", network)
    table = [*walk.embedding(), *walk.encoder(), *walk.middle()]
    for index in range(len(network.stages)):
        table += score_sde.Walk(f"de_modules.{index}", network).decoder(f"stages.{index}.decoder")
    return table
