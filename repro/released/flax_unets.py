"""The U-Nets of score_sde in JAX (NCSN++, DDPM++ and DDPM), which the CIFAR-10 consistency models use too.

Layers are numbered by class in the order in which they are called, so names and shapes tell everything but at which
resolutions attention stands where several have the same width.

Source: https://github.com/yang-song/score_sde; https://github.com/openai/consistency_models_cifar10.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError
from repro.released.base import ForeignFile, Format
from repro.released.module_lists import UNet
from repro.released.song_unets import Walk
from repro.released.table import translate

__all__ = ["arguments_of", "has_unet", "is_unet", "read_unet", "state_dict"]

_BLOCKS = ("ResnetBlockBigGANpp", "ResnetBlockDDPMpp", "ResnetBlockDDPM")
_PUBLISHED_ATTENTION = 16
_MOST_LEVELS = 12


def is_unet(tensors: Mapping[str, Tensor]) -> bool:
    """Says whether names are those of one of these networks in a flax file."""
    has_blocks = any(f"{kind}_0/Conv_0/kernel" in tensors for kind in _BLOCKS)
    return has_blocks and {"Conv_0/kernel", "Conv_1/kernel", "GroupNorm_0/scale"} <= tensors.keys()


def has_unet(file: ForeignFile, of_optimizer: bool) -> bool:
    """Says whether a file holds one of these networks, and whether an optimiser has one, as score_sde keeps it."""
    held = [each for each in file.state_dicts if is_unet(each.tensors)]
    return bool(held) and of_optimizer == any("optimizer" in each.path for each in held)


@dataclass(frozen=True)
class _Block:
    inputs: int
    outputs: int
    resamples: bool


def read_unet(chosen: Format, file: ForeignFile, tensors: Mapping[str, Tensor], image_size: int) -> UNet:
    """Returns what names and shapes tell about the network.

    Args:
        chosen: The format, with the option ``attention_at``, which is asked where shapes leave it open.
        file: The file.
        tensors: From :func:`repro.released.flax_weights.as_torch`.
        image_size: Pixels a side.

    Raises:
        UserError: no such network.
    """
    kind = next(kind for kind in _BLOCKS if f"{kind}_0.Conv_0.weight" in tensors)
    biggan = kind == _BLOCKS[0]
    blocks = [_block(tensors, f"{kind}_{number}", biggan) for number in range(_count(tensors, kind))]
    downs = _count(tensors, "Downsample")
    combines = _count(tensors, "Combine")
    widths, num_blocks = _encoder(blocks) if biggan else _encoder_without_resampling(blocks, downs)
    stem = tensors["Conv_0.weight"]
    path = "input_skip" if combines else "residual" if biggan and downs else "none"
    return UNet(
        channels=stem.shape[1],
        width=stem.shape[0],
        level_widths=tuple(widths),
        attends=_attends(chosen, file, tensors, widths, num_blocks, image_size),
        num_blocks=num_blocks,
        fourier="GaussianFourierProjection_0.W" in tensors,
        conditional="Dense_0.weight" in tensors,
        block_resampling=biggan,
        learned_resampling=biggan or bool(downs),
        input_path=path,
        combine="cat" if combines and blocks[num_blocks + biggan].inputs > widths[0] else "sum",
        filtered=any(name.startswith("Downsample_") and ".Conv2d_0." in name for name in tensors),
    )


def output_path_of(tensors: Mapping[str, Tensor], channels: int) -> str:
    """Returns the second path through the decoder: ``none``, ``output_skip`` or ``residual``."""
    if _count(tensors, "GroupNorm") == 1:
        return "none"
    return "output_skip" if tensors["Conv_1.weight"].shape[0] == channels else "residual"


def _count(tensors: Mapping[str, Tensor], kind: str) -> int:
    return len({match[1] for name in tensors if (match := re.match(rf"{kind}_(\d+)\.", name))})


def _block(tensors: Mapping[str, Tensor], name: str, biggan: bool) -> _Block:
    if f"{name}.Conv_0.weight" not in tensors or tensors[f"{name}.Conv_0.weight"].ndim != 4:
        raise UserError(f"the block {name} of this network is missing or no convolution")
    outputs, inputs = tensors[f"{name}.Conv_0.weight"].shape[:2]
    return _Block(inputs, outputs, biggan and inputs == outputs and f"{name}.Conv_2.weight" in tensors)


def _encoder(blocks: list[_Block]) -> tuple[list[int], int]:
    """Channels of every resolution and blocks on each, where blocks change the resolution."""
    num_blocks = next((index for index, block in enumerate(blocks) if block.resamples), (len(blocks) - 3) // 2)
    widths: list[int] = []
    at = 0
    while num_blocks and at + num_blocks < len(blocks) and len(widths) < _MOST_LEVELS:
        widths.append(blocks[at + num_blocks - 1].outputs)
        if not blocks[at + num_blocks].resamples:
            return widths, num_blocks
        at += num_blocks + 1
    raise UserError("the list of blocks ends inside the encoder; this is no U-Net of score_sde")


def _encoder_without_resampling(blocks: list[_Block], downs: int) -> tuple[list[int], int]:
    """The same where layers of their own change it, of which there is one fewer than resolutions."""
    levels = downs + 1
    num_blocks, left = divmod(len(blocks) - 2 - levels, 2 * levels)
    if left or num_blocks < 1:
        raise UserError(f"{len(blocks)} blocks do not make a U-Net of {levels} resolutions")
    return [blocks[num_blocks * (level + 1) - 1].outputs for level in range(levels)], num_blocks


def _attends(
    chosen: Format, file: ForeignFile, tensors: Mapping[str, Tensor], widths: list[int], num_blocks: int, size: int
) -> tuple[bool, ...]:
    """Whether every resolution has attention; it stands after each of its blocks, and once on the way up."""
    kind = next((kind for kind in ("AttnBlockpp", "AttnBlock") if f"{kind}_0.NIN_0.W" in tensors), "AttnBlockpp")
    known = [len(tensors[f"{kind}_{number}.NIN_0.b"]) for number in range(_count(tensors, kind))]
    levels = range(len(widths))
    fitting = [
        subset
        for count in range(len(widths) + 1)
        for subset in itertools.combinations(levels, count)
        if [widths[i] for i in subset for _ in range(num_blocks)] + [widths[-1]] + [widths[i] for i in subset[::-1]]
        == known
    ]
    if not fitting:
        raise UserError(f"{len(known)} layers of attention do not fit a U-Net with {num_blocks} blocks a resolution")
    sizes = [[size >> level for level in subset] for subset in fitting]
    if len(fitting) == 1:
        first = sizes[0]
    else:
        choices = " or ".join(str(each).replace(" ", "") for each in sizes[:6])
        assumed = [_PUBLISHED_ATTENTION] if [_PUBLISHED_ATTENTION] in sizes else None
        first = chosen.settle(file, "attention_at", assumed, f"its layers fit {choices}")
        if sorted(first, reverse=True) not in sizes:
            raise UserError(f"attention_at is {first}; the layers of {file.path} fit {choices}")
    return tuple(size >> level in first for level in levels)


class _Named(Walk):
    """Walks our network in the order of the flax one, whose layers count by class."""

    def __init__(self, network: nn.Module, kinds: Mapping[str, str]) -> None:
        super().__init__("", network)
        self.kinds = kinds
        self.counts: Counter[str] = Counter()

    def name_of_next(self, kind: str) -> str:
        name = self.kinds[kind]
        self.counts[name] += 1
        return f"{name}_{self.counts[name] - 1}"


def state_dict(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a flax network into ours.

    Args:
        tensors: From :func:`repro.released.flax_weights.as_torch`.
        network: The network built for it.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    kinds = {
        "fourier": "GaussianFourierProjection",
        "dense": "Dense",
        "conv": "Conv",
        "norm": "GroupNorm",
        "block": next((kind for kind in _BLOCKS if f"{kind}_0.Conv_0.weight" in tensors), _BLOCKS[0]),
        "attention": "AttnBlock" if "AttnBlock_0.NIN_0.W" in tensors else "AttnBlockpp",
        "down": "Downsample",
        "up": "Upsample",
        "combine": "Combine",
    }
    walk = _Named(network, kinds)
    table = [*walk.embedding(), *walk.encoder(), *walk.middle(), *walk.decoder("decoder")]
    return translate(table, tensors, network, "flax score_sde")


def arguments_of(
    chosen: Format, file: ForeignFile, tensors: Mapping[str, Tensor], image_size: int
) -> tuple[UNet, dict[str, Any]]:
    """Returns the network, and the configuration of score_sde that makes it, without its equation."""
    unet = read_unet(chosen, file, tensors, image_size)
    either = not (unet.block_resampling or unet.filtered or unet.fourier or unet.input_path != "none")
    name = "ddpm" if either and "ResnetBlockDDPM_0.Conv_0.weight" in tensors else "ncsnpp"
    model = unet.record(image_size) | {"name": name, "progressive": output_path_of(tensors, unet.channels)}
    if name == "ncsnpp" and not unet.filtered:
        model["fir"] = chosen.settle(file, "fir", False)
    data = {"image_size": image_size, "num_channels": unet.channels, "centered": True}
    return unet, {"model": model, "data": data}
