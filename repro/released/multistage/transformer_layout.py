"""The transformers of LucasYFL/Multistage_Diffusion (``dpm-solver/score_sde_pytorch/models``): U-ViT and DiT.

Source of names and settings: https://github.com/LucasYFL/Multistage_Diffusion; Zhang et al. 2024, arXiv:2312.09181.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.networks.dit import DiT
from repro.released import song_unets as score_sde
from repro.released.dit import layout as dit
from repro.released.multistage.layout import _cuts
from repro.released.table import Entry, copied, foreign_names, translate
from repro.released.uvit import layout as uvit

__all__ = ["settings", "shadow_names", "state_dict", "with_shadow"]

_NAMES = ("UViT", "UViT_one_hot", "UViT_multimodel", "DiT")
_PREFIX = "module."
_TIME_CLASSES = 21
_LEVELS_PER_UNIT = 1000


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the configuration of that code base.

    Args:
        record: ``{"model": {"name": ..., ...}, "data": {"image_size": ...}}``; DiT needs no ``data``.

    Returns:
        ``{"name": ..., "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown network, or a setting is missing.
    """
    model = record.get("model", {})
    if model.get("name") not in _NAMES:
        raise unknown("multistage transformer", str(model.get("name")), _NAMES)
    try:
        return _dit_settings(model) if model["name"] == "DiT" else _uvit_settings(model, record["data"]["image_size"])
    except KeyError as error:
        raise UserError(f"the configuration of the multistage {model['name']} lacks {error.args[0]!r}") from error


def _dit_settings(model: Mapping[str, Any]) -> dict[str, Any]:
    time_classes = _TIME_CLASSES if model.get("treat_t_as_y") else 0
    labels = {"num_classes": 0, "gelu": "exact", "time_classes": time_classes}
    return {"name": "DiT", "args": dit.shared_arguments(model) | labels}


def _uvit_settings(model: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    args = {"image_size": image_size} | uvit.shared_arguments(model)
    if model["name"] == "UViT_one_hot":
        args["label_embedding"] = "mlp"
    if model["name"] == "UViT_multimodel":
        levels = [[[edge * _LEVELS_PER_UNIT for edge in pair] for pair in stage] for stage in model["stage_interval"]]
        args |= {"long_skips": True, "decoder_widths": [int(width) for width in model["de_nfs"]]} | _cuts(levels)
    return {"name": "UViT", "args": args}


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a multistage transformer, with or without the prefix "module." into ours.

    DiT's class table (time only) or time embedding (time as class) is there but not used, and is left out.

    Args:
        foreign: The tensors by name; ``final_layer.1`` and so on, copies of ``final_layer.0``, may be missing.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes, last convolutions that differ.
    """
    foreign = {name.removeprefix(_PREFIX): tensor for name, tensor in foreign.items()}
    for name, tensor in foreign.items():
        if _is_copy(name, network):
            first = foreign.get(f"final_layer.0.{name.rpartition('.')[2]}", tensor)
            if not torch.equal(first, tensor):
                raise UserError(
                    f"multistage tensor {name!r} differs from that of final_layer.0, its copy; file damaged?"
                )
    ignored = _unused_by_dit(network) if isinstance(network, DiT) else ()
    return translate(
        list(_entries(network)),
        foreign,
        network,
        "multistage",
        ignored=lambda name: name.startswith(tuple(ignored)) or _is_copy(name, network),
    )


def shadow_names(network: nn.Module) -> list[str]:
    """As :func:`repro.released.song_unets.shadow_names`; DiT's position table is not trained."""
    names = foreign_names(list(_entries(network)))
    if not isinstance(network, DiT):
        return names
    before = "t_embedder.mlp.2.bias" if network.time_mlp is not None else "x_embedder.proj.bias"
    after = names.index(before) + 1
    return [*names[1:after], *_unused_by_dit(network), *names[after:]]


def with_shadow(
    foreign: Mapping[str, Tensor], shadow_params: Sequence[Tensor], network: nn.Module
) -> dict[str, Tensor]:
    """As :func:`repro.released.song_unets.with_shadow`."""
    foreign = {name.removeprefix(_PREFIX): tensor for name, tensor in foreign.items() if not _is_copy(name, network)}
    return score_sde.replace_shadow(foreign, shadow_params, shadow_names(network))


def _unused_by_dit(network: DiT) -> tuple[str, ...]:
    if network.time_mlp is None:
        return tuple(f"t_embedder.mlp.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias"))
    return ("y_embedder.embedding_table.weight",)


def _is_copy(name: str, network: nn.Module) -> bool:
    parts = name.removeprefix(_PREFIX).split(".")
    index = parts[1] if parts[0] == "final_layer" else ""
    return not isinstance(network, DiT) and index.isdecimal() and 0 < int(index) < len(network.decoders)


def _entries(network: nn.Module) -> Iterator[Entry]:
    if isinstance(network, DiT):
        yield from _dit_entries(network)
    elif not network.multistage:
        yield from uvit.single_decoder_entries(network)
    else:
        yield from _decoders_entries(network)


def _dit_entries(network: DiT) -> Iterator[Entry]:
    table = Entry(("y_embedder.embedding_table.weight",), ("time_table.weight",), lambda rows: (rows[:_TIME_CLASSES],))
    yield from dit.trunk_entries(network, [table] if network.time_mlp is None else [])


def _decoders_entries(network: nn.Module) -> Iterator[Entry]:
    yield from uvit.encoder_entries(network)
    stages = list(enumerate(network.decoders))
    for stage, decoder in stages:
        for index, block in enumerate(decoder.blocks):
            ours = f"decoders.{stage}.blocks.{index}"
            yield from uvit.block_entries(f"de_modules.{stage}.{index}", ours, block)
    for stage, decoder in stages:
        yield from copied(f"norm.{stage}", f"decoders.{stage}.norm", decoder.norm)
    for stage, decoder in stages:
        yield from copied(f"decoder_pred.{stage}", f"decoders.{stage}.head", decoder.head)
    if isinstance(network.final, nn.Conv2d):
        yield from copied("final_layer.0", "final", network.final)
