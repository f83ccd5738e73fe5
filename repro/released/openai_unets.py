"""The U-Net of OpenAI's projects (class UNetModel): improved-diffusion, guided-diffusion, consistency_models.

Source of names and settings: https://github.com/openai/guided-diffusion, https://github.com/openai/consistency_models;
Dhariwal and Nichol 2021, arXiv:2105.05233; Song et al. 2023, arXiv:2303.01469.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.networks.layers.blocks import Attention, ResidualBlock
from repro.networks.layers.resampling import DownConv, UpConv
from repro.released.table import Entry, copied, stacked_qkv, translate

__all__ = ["arguments_of", "has_variance", "is_unet", "settings", "state_dict"]

_REQUIRED = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "attention_resolutions",
)
_OPTIONS = {
    "dropout": 0.0,
    "channel_mult": (1, 2, 4, 8),
    "conv_resample": True,
    "dims": 2,
    "num_classes": None,
    "use_checkpoint": False,
    "use_fp16": False,
    "num_heads": 1,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
}


def is_unet(tensors: Mapping[str, Tensor]) -> bool:
    """Says whether names are those of a UNetModel."""
    return all(name in tensors for name in ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"))


def has_variance(tensors: Mapping[str, Tensor]) -> bool:
    """Says whether a UNetModel has outputs for a learned variance, as many as for the images."""
    return tensors["out.2.weight"].shape[0] == 2 * tensors["input_blocks.0.0.weight"].shape[1]


def arguments_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the constructor arguments of a UNetModel that names and shapes tell: not image size and heads.

    Args:
        tensors: Its state dict.
    """
    width, channels = tensors["time_embed.0.weight"].shape[1], tensors["input_blocks.0.0.weight"].shape[1]
    widths, attends, num_blocks, change = _levels(tensors)
    labels = tensors.get("label_emb.weight")
    return {
        "in_channels": channels,
        "model_channels": width,
        "out_channels": tensors["out.2.weight"].shape[0],
        "num_res_blocks": num_blocks,
        "attention_resolutions": [2**level for level, attend in enumerate(attends) if attend],
        "channel_mult": [each // width if each % width == 0 else each / width for each in widths],
        "num_classes": None if labels is None else labels.shape[0],
        "use_scale_shift_norm": tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        "resblock_updown": change == "block",
        "conv_resample": change != "plain",
    }


def _numbers(tensors: Mapping[str, Tensor], pattern: str) -> set[int]:
    return {int(match[1]) for name in tensors if (match := re.match(pattern, name))}


def _levels(tensors: Mapping[str, Tensor]) -> tuple[list[int], list[bool], int, str]:
    """Channels and attention of every resolution, blocks on each, and what changes the resolution.

    The first place where the decoder doubles it, or where the encoder's numbers leave one out (a layer without
    weights), gives the number of blocks, and so the places of all resolutions.
    """
    ins, outs = (_numbers(tensors, rf"{half}put_blocks\.(\d{{1,4}})\.") for half in ("in", "out"))
    ups = _numbers(tensors, r"output_blocks\.(\d{1,4})\.[12]\.(?:in_layers|conv)\.")
    left_out = set(range(max(ins))) - ins
    num_blocks = min(ups) if ups else min(left_out) - 1 if left_out else max(outs)
    starts = range(1, max(outs) + 2, num_blocks + 1)
    widths = [tensors[f"input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts]
    attends = [f"input_blocks.{start}.1.norm.weight" in tensors for start in starts]
    between = f"input_blocks.{num_blocks + 1}.0"
    changes = {"block": f"{between}.in_layers.2.weight", "conv": f"{between}.op.weight"}
    return widths, attends, num_blocks, next((kind for kind, name in changes.items() if name in tensors), "plain")


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the constructor arguments of a UNetModel.

    Args:
        record: Keyword arguments; ``attention_resolutions`` are factors of down-sampling, as that class has them.

    Returns:
        ``{"name": "ADM", "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown or missing argument, or a network that is not for images.
    """
    for argument in record:
        if argument not in _REQUIRED and argument not in _OPTIONS:
            raise unknown("argument of a UNetModel", argument, [*_REQUIRED, *_OPTIONS])
    for argument in _REQUIRED:
        if argument not in record:
            raise UserError(f"the UNetModel record has no {argument!r}; give all of {', '.join(_REQUIRED)}")
    unet: dict[str, Any] = _OPTIONS | dict(record)
    if unet["dims"] != 2:
        raise UserError(f"this UNetModel has dims={unet['dims']}; only networks for images (dims=2) can be read")
    per_head, upper = unet["num_head_channels"], unet["num_heads_upsample"]
    heads = {"num_heads": unet["num_heads"]} if per_head == -1 else {"channels_per_head": per_head}
    if per_head == -1 and upper != -1:
        heads["num_heads_up"] = upper
    return {
        "name": "ADM",
        "args": {
            "image_size": unet["image_size"],
            "channels": unet["in_channels"],
            "num_classes": unet["num_classes"] or 0,
            "width": unet["model_channels"],
            "channel_mult": list(unet["channel_mult"]),
            "num_blocks": unet["num_res_blocks"],
            "attention_at": [unet["image_size"] // factor for factor in unet["attention_resolutions"]],
            "dropout": unet["dropout"],
            "adaptive_scale": unet["use_scale_shift_norm"],
            "resample": "block" if unet["resblock_updown"] else "conv" if unet["conv_resample"] else "plain",
            "min_group": 1,
            "out_channels": unet["out_channels"],
            **heads,
        },
    }


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a UNetModel into ours.

    Args:
        foreign: Tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(list(_entries(network)), foreign, network, "UNetModel")


def _entries(network: nn.Module) -> Iterator[Entry]:
    conditioning = network.conditioning
    yield from copied("time_embed.0", "conditioning.layer1", conditioning.layer1)
    yield from copied("time_embed.2", "conditioning.layer2", conditioning.layer2)
    if conditioning.label is not None:
        yield from copied("label_emb", "conditioning.label", conditioning.label, lambda weight: weight.T)
    yield from copied("input_blocks.0.0", "encoder.stem", network.encoder.stem)
    count = 1
    for depth, level in enumerate(network.encoder.levels):
        ours = f"encoder.levels.{depth}"
        if level.down is not None:
            yield from _between(f"input_blocks.{count}.0", f"{ours}.down", level.down)
            count += 1
        for index, block in enumerate(level.blocks):
            yield from _block(f"input_blocks.{count}.0", f"input_blocks.{count}.1", f"{ours}.blocks.{index}", block)
            count += 1
    yield from _block("middle_block.0", "middle_block.1", "middle.block1", network.middle.block1)
    yield from _block("middle_block.2", "", "middle.block2", network.middle.block2)
    yield from _decoder_entries(network)


def _decoder_entries(network: nn.Module) -> Iterator[Entry]:
    count, after = 0, 0
    for depth, level in enumerate(network.decoder.levels):
        ours = f"decoder.levels.{depth}"
        if level.up is not None:
            yield from _between(f"output_blocks.{count - 1}.{after}", f"{ours}.up", level.up)
        for index, block in enumerate(level.blocks):
            stem = f"output_blocks.{count}"
            yield from _block(f"{stem}.0", f"{stem}.1", f"{ours}.blocks.{index}", block)
            after = 1 if block.attention is None else 2
            count += 1
        if level.head is not None:
            yield from copied("out.0", f"{ours}.head.norm", level.head.norm)
            yield from copied("out.2", f"{ours}.head.conv", level.head.conv)


def _between(theirs: str, ours: str, layer: nn.Module) -> Iterator[Entry]:
    if isinstance(layer, ResidualBlock):
        yield from _block(theirs, "", ours, layer)
    elif isinstance(layer, DownConv):
        yield from copied(f"{theirs}.op", f"{ours}.conv", layer.conv)
    elif isinstance(layer, UpConv):
        yield from copied(f"{theirs}.conv", f"{ours}.conv", layer.conv)


def _block(theirs: str, attention: str, ours: str, block: ResidualBlock) -> Iterator[Entry]:
    pairs = (
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "affine"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "shortcut"),
    )
    for foreign, own in pairs:
        layer = getattr(block, own)
        if layer is not None:
            yield from copied(f"{theirs}.{foreign}", f"{ours}.{own}", layer)
    if block.attention is not None:
        yield from _attention(attention, f"{ours}.attention", block.attention)


def _attention(theirs: str, ours: str, attention: Attention) -> Iterator[Entry]:
    yield from copied(f"{theirs}.norm", f"{ours}.norm", attention.norm)
    yield from stacked_qkv(f"{theirs}.qkv", f"{ours}.qkv")
    yield from copied(f"{theirs}.proj_out", f"{ours}.proj", attention.proj, lambda weight: weight.flatten(1))
