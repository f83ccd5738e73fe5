"""The network of facebookresearch/DiT (``models.py``).

Source of names and settings: https://github.com/facebookresearch/DiT; Peebles & Xie 2023, arXiv:2212.09748.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import unknown
from repro.released.table import Entry, copied, translate

__all__ = ["settings", "shared_arguments", "state_dict", "trunk_entries"]

_DEFAULTS = {
    "input_size": 32,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "class_dropout_prob": 0.1,
    "num_classes": 1000,
    "learn_sigma": True,
}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the constructor arguments of the DiT class.

    Args:
        record: The keyword arguments; what is left out takes the reference's defaults (those of DiT-XL/2).

    Returns:
        ``{"name": ..., "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown argument.
    """
    for argument in record:
        if argument not in _DEFAULTS:
            raise unknown("argument of DiT", argument, _DEFAULTS)
    arguments = _DEFAULTS | dict(record)
    dropout = arguments["class_dropout_prob"]
    labels = {
        "num_classes": arguments["num_classes"],
        "null_class": dropout > 0,
        "label_dropout": dropout,
        "gelu": "tanh",
    }
    return {"name": "DiT", "args": shared_arguments(arguments) | labels}


def shared_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our arguments for those that DiT has in all its code bases; those about labels are not among them."""
    return {
        "image_size": arguments["input_size"],
        "channels": arguments["in_channels"],
        "patch_size": arguments["patch_size"],
        "width": arguments["hidden_size"],
        "depth": arguments["depth"],
        "heads": arguments["num_heads"],
        "mlp_ratio": arguments["mlp_ratio"],
        "learn_sigma": arguments["learn_sigma"],
    }


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a DiT (a released file, or ``ema`` of a training checkpoint) into ours.

    The fixed position table is taken from the file.

    Args:
        foreign: DiT's tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(list(_entries(network)), foreign, network, "DiT")


def _entries(network: nn.Module) -> Iterator[Entry]:
    labels = Entry(("y_embedder.embedding_table.weight",), ("labels.vectors.weight",), lambda table: (table,))
    yield from trunk_entries(network, [labels])


def trunk_entries(network: nn.Module, conditions: list[Entry]) -> Iterator[Entry]:
    """Lists the entries of the whole network, with those of the class table as an argument.

    Args:
        network: Our network.
        conditions: Entries that stand where DiT lists its class table.
    """
    yield Entry(("pos_embed",), ("position",), lambda table: (table,))
    yield from copied("x_embedder.proj", "patches.projection", network.patches.projection)
    if network.time_mlp is not None:
        for index in (0, 2):
            yield from copied(f"t_embedder.mlp.{index}", f"time_mlp.{index}", network.time_mlp[index])
    yield from conditions
    for index, block in enumerate(network.blocks):
        for theirs, ours in (
            ("attn.qkv", "attention.qkv"),
            ("attn.proj", "attention.projection"),
            ("mlp.fc1", "mlp.inner"),
            ("mlp.fc2", "mlp.outer"),
            ("adaLN_modulation.1", "modulation"),
        ):
            yield from copied(f"blocks.{index}.{theirs}", f"blocks.{index}.{ours}", block.get_submodule(ours))
    yield from copied("final_layer.linear", "head.projection", network.head.projection)
    yield from copied("final_layer.adaLN_modulation.1", "head.modulation", network.head.modulation)
