"""The network of baofff/U-ViT (``libs/uvit.py``).

Source of names and settings: https://github.com/baofff/U-ViT; Bao et al. 2023, arXiv:2209.12152.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.released.table import Entry, copied, translate

__all__ = [
    "block_entries",
    "encoder_entries",
    "settings",
    "shared_arguments",
    "single_decoder_entries",
    "state_dict",
]

_DEFAULTS = {
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "qkv_bias": False,
    "norm_layer": "LayerNorm",
    "mlp_time_embed": False,
    "num_classes": -1,
    "conv": True,
    "skip": True,
}
_WITHOUT_EFFECT = ("name", "qk_scale", "use_checkpoint")
_NORMS = {"LayerNorm": ("layer", 1e-5), "RMSNorm": ("rms", None)}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the constructor arguments of the U-ViT class.

    ``qk_scale`` changes nothing: the reference code leaves it out wherever PyTorch has its own attention function.
    Class counts are taken as they stand: the ImageNet models have 1001, of which number 1000 is "no label".

    Args:
        record: The keyword arguments; what is left out takes the reference's defaults.

    Returns:
        ``{"name": ..., "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown argument.
    """
    for argument in record:
        if argument not in _DEFAULTS and argument not in _WITHOUT_EFFECT:
            raise unknown("argument of U-ViT", argument, [*_DEFAULTS, *_WITHOUT_EFFECT])
    arguments = _DEFAULTS | dict(record)
    return {"name": "UViT", "args": {"image_size": arguments["img_size"]} | shared_arguments(arguments)}


def shared_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our arguments for those that U-ViT has in all its code bases; the image size is not among them."""
    norm, norm_eps = _norm(str(arguments["norm_layer"]))
    return {
        "channels": arguments["in_chans"],
        "num_classes": max(arguments["num_classes"], 0),
        "patch_size": arguments["patch_size"],
        "width": arguments["embed_dim"],
        "depth": arguments["depth"],
        "heads": arguments["num_heads"],
        "mlp_ratio": arguments["mlp_ratio"],
        "qkv_bias": arguments["qkv_bias"],
        "time_mlp": arguments["mlp_time_embed"],
        "long_skips": arguments["skip"],
        "final_conv": arguments["conv"],
        "norm": norm,
        "norm_eps": norm_eps,
    }


def _norm(layer: str) -> tuple[str, float | None]:
    kind = next((name for name in _NORMS if name in layer), None)
    if kind is None:
        raise unknown("norm_layer of U-ViT", layer, _NORMS)
    norm, norm_eps = _NORMS[kind]
    stated = re.search(r"eps\W+([0-9.]+(?:e-?[0-9]+)?)", layer)
    return norm, float(stated[1]) if stated else norm_eps


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a U-ViT (``nnet_ema.pth``, or a released file) into ours.

    Args:
        foreign: U-ViT's tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(list(single_decoder_entries(network)), foreign, network, "U-ViT")


def single_decoder_entries(network: nn.Module) -> Iterator[Entry]:
    """Returns all entries, in the order in which U-ViT lists its parameters."""
    if len(network.decoders) != 1:
        raise UserError("U-ViT files hold one decoder; this network has several")
    (decoder,) = network.decoders
    yield from encoder_entries(network)
    for index, block in enumerate(decoder.blocks):
        yield from block_entries(f"out_blocks.{index}", f"decoders.0.blocks.{index}", block)
    yield from copied("norm", "decoders.0.norm", decoder.norm)
    yield from copied("decoder_pred", "decoders.0.head", decoder.head)
    if isinstance(network.final, nn.Conv2d):
        yield from copied("final_layer", "final", network.final)


def encoder_entries(network: nn.Module) -> Iterator[Entry]:
    """Lists the entries of everything up to the middle block."""
    yield Entry(("pos_embed",), ("position",), lambda table: (table,))
    yield from copied("patch_embed.proj", "patches.projection", network.patches.projection)
    if isinstance(network.time_mlp, nn.Sequential):
        yield from _two_layers("time_embed", "time_mlp", network.time_mlp)
    if network.labels is not None and isinstance(network.labels.vectors, nn.Embedding):
        yield Entry(("label_emb.weight",), ("labels.vectors.weight",), lambda table: (table,))
    elif network.labels is not None:
        yield from _two_layers("label_emb", "labels.vectors", network.labels.vectors)
    for index, block in enumerate(network.encoder):
        yield from block_entries(f"in_blocks.{index}", f"encoder.{index}", block)
    yield from block_entries("mid_block", "middle", network.middle)


def _two_layers(foreign: str, ours: str, layers: nn.Sequential) -> Iterator[Entry]:
    for index in (0, 2):
        yield from copied(f"{foreign}.{index}", f"{ours}.{index}", layers[index])


def block_entries(foreign: str, ours: str, block: nn.Module) -> Iterator[Entry]:
    """Lists the entries of one transformer block."""
    for theirs, own in (
        ("norm1", "attention_norm"),
        ("attn.qkv", "attention.qkv"),
        ("attn.proj", "attention.projection"),
        ("norm2", "mlp_norm"),
        ("mlp.fc1", "mlp.inner"),
        ("mlp.fc2", "mlp.outer"),
        ("skip_linear", "merge"),
    ):
        if own != "merge" or block.merge is not None:
            yield from copied(f"{foreign}.{theirs}", f"{ours}.{own}", block.get_submodule(own))
