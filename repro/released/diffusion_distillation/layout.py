"""The U-Net of google-research/diffusion_distillation (``unet.py``, class UNet), in flax.

Source of names and settings: https://github.com/google-research/google-research/tree/master/diffusion_distillation;
Salimans and Ho 2022, arXiv:2202.00512, appendix E.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.networks.layers.blocks import Attention, ResidualBlock
from repro.released.table import Entry, copied, translate

__all__ = ["settings", "state_dict"]

_REQUIRED = ("image_size", "ch", "emb_ch", "ch_mult", "num_res_blocks", "attn_resolutions")
_OPTIONS = {
    "channels": 3,
    "out_ch": 3,
    "num_classes": 1,
    "num_heads": 1,
    "head_dim": None,
    "dropout": 0.2,
    "resblock_resample": True,
}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the arguments of that UNet.

    Args:
        record: Its arguments, with ``image_size`` and ``channels`` of the images; one class means none.

    Returns:
        ``{"name": "ADM", "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown or missing argument.
    """
    for argument in record:
        if argument not in _REQUIRED and argument not in _OPTIONS:
            raise unknown("argument of the UNet of diffusion_distillation", argument, [*_REQUIRED, *_OPTIONS])
    for argument in _REQUIRED:
        if argument not in record:
            raise UserError(f"the UNet record has no {argument!r}; give all of {', '.join(_REQUIRED)}")
    unet = _OPTIONS | dict(record)
    heads = {"num_heads": unet["num_heads"]}
    if unet["head_dim"] is not None:
        heads = {"channels_per_head": unet["head_dim"]}
    return {
        "name": "ADM",
        "args": {
            "image_size": unet["image_size"],
            "channels": unet["channels"],
            "num_classes": unet["num_classes"] if unet["num_classes"] > 1 else 0,
            "width": unet["ch"],
            "channel_mult": list(unet["ch_mult"]),
            "num_blocks": unet["num_res_blocks"],
            "attention_at": list(unet["attn_resolutions"]),
            "dropout": unet["dropout"],
            "hidden_mult": unet["emb_ch"] / unet["ch"],
            "resample": "block" if unet["resblock_resample"] else "conv",
            "min_group": 1,
            "out_channels": unet["out_ch"],
            "stem_width": unet["ch"],
            "eps": 1e-6,
            "symmetric_stride": False,
            "ddpm_embedding": True,
            **heads,
        },
    }


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Returns our state dict from the parameters of that UNet.

    Args:
        foreign: Tensors from :func:`repro.released.flax_weights.as_torch`.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(list(_entries(network)), foreign, network, "diffusion_distillation")


def _entries(network: nn.Module) -> Iterator[Entry]:
    conditioning = network.conditioning
    yield from copied("dense0", "conditioning.layer1", conditioning.layer1)
    yield from copied("dense1", "conditioning.layer2", conditioning.layer2)
    if conditioning.label is not None:
        yield Entry(("class_emb.weight", "class_emb.bias"), ("conditioning.label.weight",), _with_bias)
    yield from copied("conv_in", "encoder.stem", network.encoder.stem)
    for depth, level in enumerate(network.encoder.levels):
        if level.down is not None:
            yield from _between(f"down_{depth - 1}.downsample", f"encoder.levels.{depth}.down", level.down)
        yield from _blocks(f"down_{depth}", f"encoder.levels.{depth}", level.blocks)
    yield from _block("mid.block_1", "mid.attn_1", "middle.block1", network.middle.block1)
    yield from _block("mid.block_2", "", "middle.block2", network.middle.block2)
    last = len(network.decoder.levels) - 1
    for depth, level in enumerate(network.decoder.levels):
        if level.up is not None:
            yield from _between(f"up_{last - depth + 1}.upsample", f"decoder.levels.{depth}.up", level.up)
        yield from _blocks(f"up_{last - depth}", f"decoder.levels.{depth}", level.blocks)
        if level.head is not None:
            yield from copied("norm_out", f"decoder.levels.{depth}.head.norm", level.head.norm)
            yield from copied("conv_out", f"decoder.levels.{depth}.head.conv", level.head.conv)


def _blocks(theirs: str, ours: str, blocks: nn.ModuleList) -> Iterator[Entry]:
    for index, block in enumerate(blocks):
        yield from _block(f"{theirs}.block_{index}", f"{theirs}.attn_{index}", f"{ours}.blocks.{index}", block)


def _between(theirs: str, ours: str, layer: nn.Module) -> Iterator[Entry]:
    if isinstance(layer, ResidualBlock):
        yield from _block(theirs, "", ours, layer)
    else:
        yield from copied(theirs, f"{ours}.conv", layer.conv)


def _block(theirs: str, attention: str, ours: str, block: ResidualBlock) -> Iterator[Entry]:
    for foreign, own in (
        ("norm1", "norm1"),
        ("conv1", "conv1"),
        ("temb_proj", "affine"),
        ("norm2", "norm2"),
        ("conv2", "conv2"),
    ):
        yield from copied(f"{theirs}.{foreign}", f"{ours}.{own}", getattr(block, own))
    if block.shortcut is not None:
        shape = block.shortcut.weight.shape
        yield from copied(
            f"{theirs}.nin_shortcut", f"{ours}.shortcut", block.shortcut, lambda weight: weight.reshape(shape)
        )
    if block.attention is not None:
        yield from _attention(attention, f"{ours}.attention", block.attention)


def _attention(theirs: str, ours: str, attention: Attention) -> Iterator[Entry]:
    yield from copied(f"{theirs}.norm", f"{ours}.norm", attention.norm)
    for part, change in (("weight", lambda kernel: kernel.flatten(1).T), ("bias", lambda bias: bias.flatten())):
        names = tuple(f"{theirs}.{each}.{part}" for each in "qkv")
        yield Entry(names, (f"{ours}.qkv.{part}",), _stacked(change))
    yield from copied(f"{theirs}.proj_out", f"{ours}.proj", attention.proj, lambda kernel: kernel.flatten(0, -2).T)


def _stacked(change: Any) -> Any:
    return lambda *layers: (torch.cat([change(layer) for layer in layers]),)


def _with_bias(weight: Tensor, bias: Tensor) -> tuple[Tensor]:
    """One vector a class, the bias added: every image has a class there."""
    return (weight + bias[:, None],)
