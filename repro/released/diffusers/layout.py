"""The U-Net of diffusers (class ``UNet2DModel``) with the settings of DDPM.

Source of names and settings: https://github.com/huggingface/diffusers; Ho et al. 2020, arXiv:2006.11239.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.networks.layers.blocks import Attention, ResidualBlock
from repro.released.table import Entry, copied, translate

__all__ = ["settings", "state_dict"]

_DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "time_embedding_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
}
_ONLY: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
_BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
_EMBEDDINGS = {(False, 1): True, (True, 0): False}  # (flip_sin_to_cos, freq_shift): whether it is DDPM's
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the settings of a UNet2DModel.

    Args:
        config: The content of its ``config.json``; what is left out takes the defaults of that class.

    Returns:
        ``{"name": "ADM", "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: settings that are not those of a DDPM network.
    """
    for name, legal in _ONLY.items():
        if (value := config.get(name, legal[0])) not in legal:
            raise _other(f"{name} is {value!r:.40}, not {legal[0]!r}")
    unet = _DEFAULTS | {name: config[name] for name in _DEFAULTS if name in config}
    embedding = (unet["flip_sin_to_cos"], unet["freq_shift"])
    if embedding not in _EMBEDDINGS:
        raise _other(f"flip_sin_to_cos and freq_shift are {embedding}")
    if unet["attn_norm_num_groups"] not in (None, unet["norm_num_groups"]):
        raise _other("attn_norm_num_groups differs from norm_num_groups")
    widths, attends = list(unet["block_out_channels"]), _attends(unet)
    size = unet["sample_size"]
    shorter = size if isinstance(size, int) else min(size)
    head = unet["attention_head_dim"]
    return {
        "name": "ADM",
        "args": {
            "image_size": size,
            "channels": unet["in_channels"],
            "out_channels": unet["out_channels"],
            "num_classes": unet["num_class_embeds"] or 0,
            "width": widths[0],
            "channel_mult": [_multiple(width, widths[0]) for width in widths],
            "num_blocks": unet["layers_per_block"],
            "attention_at": [shorter >> level for level, attend in enumerate(attends) if attend],
            "dropout": unet["dropout"],
            "hidden_mult": (unet["time_embedding_dim"] or 4 * widths[0]) / widths[0],
            "adaptive_scale": False,
            "resample": "conv",
            "max_groups": unet["norm_num_groups"],
            "min_group": 1,
            "eps": unet["norm_eps"],
            "symmetric_stride": unet["downsample_padding"] == 1,
            "ddpm_embedding": _EMBEDDINGS[embedding],
            **({"num_heads": 1} if head is None else {"channels_per_head": head}),
        },
    }


def _other(what: str) -> UserError:
    return UserError(
        f"this UNet2DModel is no DDPM network: {what}; diffusers itself draws from it: "
        "repro predict --model Pipeline --model.pipeline DIR"
    )


def _multiple(channels: int, width: int) -> float:
    return channels // width if channels % width == 0 else (channels + 0.5) / width


def _attends(unet: Mapping[str, Any]) -> list[bool]:
    """Whether each resolution has attention, from fine to coarse."""
    downs, ups = unet["down_block_types"], unet["up_block_types"][::-1]
    unknown = [name for name in (*downs, *ups) if name not in _BLOCKS]
    if unknown:
        raise _other(f"it has blocks of the kind {unknown[0]!r:.40}")
    attends = [_BLOCKS[name] for name in downs]
    if attends != [_BLOCKS[name] for name in ups] or len(attends) != len(unet["block_out_channels"]):
        raise _other("attention is not on the same resolutions in both halves")
    return attends


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a UNet2DModel, under the present names of its attention or the old ones, into ours.

    Args:
        foreign: Tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(list(_entries(network)), {_renamed(name): each for name, each in foreign.items()}, network, "DDPM")


def _renamed(name: str) -> str:
    if ".attentions." in name:
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _entries(network: nn.Module) -> Iterator[Entry]:
    conditioning, levels = network.conditioning, network.encoder.levels
    yield from copied("conv_in", "encoder.stem", network.encoder.stem)
    yield from copied("time_embedding.linear_1", "conditioning.layer1", conditioning.layer1)
    yield from copied("time_embedding.linear_2", "conditioning.layer2", conditioning.layer2)
    if conditioning.label is not None:
        yield from copied("class_embedding", "conditioning.label", conditioning.label, lambda weight: weight.T)
    for depth, level in enumerate(levels):
        if level.down is not None:
            theirs = f"down_blocks.{depth - 1}.downsamplers.0.conv"
            yield from copied(theirs, f"encoder.levels.{depth}.down.conv", level.down.conv)
        yield from _blocks(f"down_blocks.{depth}", f"encoder.levels.{depth}", level.blocks)
    for number, block in ((0, network.middle.block1), (1, network.middle.block2)):
        yield from _block(f"mid_block.resnets.{number}", f"middle.block{number + 1}", block)
    yield from _attention("mid_block.attentions.0", "middle.block1.attention", network.middle.block1.attention)
    for depth, level in enumerate(network.decoder.levels):
        ours = f"decoder.levels.{depth}"
        if level.up is not None:
            yield from copied(f"up_blocks.{depth - 1}.upsamplers.0.conv", f"{ours}.up.conv", level.up.conv)
        yield from _blocks(f"up_blocks.{depth}", ours, level.blocks)
        if level.head is not None:
            yield from copied("conv_norm_out", f"{ours}.head.norm", level.head.norm)
            yield from copied("conv_out", f"{ours}.head.conv", level.head.conv)


def _blocks(theirs: str, ours: str, blocks: nn.ModuleList) -> Iterator[Entry]:
    for number, block in enumerate(blocks):
        yield from _block(f"{theirs}.resnets.{number}", f"{ours}.blocks.{number}", block)
        if block.attention is not None:
            name = f"{theirs}.attentions.{number}"
            yield from _attention(name, f"{ours}.blocks.{number}.attention", block.attention)


def _block(theirs: str, ours: str, block: ResidualBlock) -> Iterator[Entry]:
    pairs = {"time_emb_proj": "affine", "conv_shortcut": "shortcut"}
    pairs |= {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
    for foreign, own in pairs.items():
        if (layer := getattr(block, own)) is not None:
            yield from copied(f"{theirs}.{foreign}", f"{ours}.{own}", layer)


def _attention(theirs: str, ours: str, attention: Attention) -> Iterator[Entry]:
    yield from copied(f"{theirs}.group_norm", f"{ours}.norm", attention.norm)
    for part in ("weight", "bias"):
        three = tuple(f"{theirs}.to_{each}.{part}" for each in "qkv")
        yield Entry(three, (f"{ours}.qkv.{part}",), lambda *each: (torch.cat(each),))
    yield from copied(f"{theirs}.to_out.0", f"{ours}.proj", attention.proj)
