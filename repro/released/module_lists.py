"""What the flat module lists of score_sde tell about its U-Nets, from nothing but names and shapes.

Source: the order in which ``models/ddpm.py`` and ``models/ncsnpp.py`` of yang-song/score_sde_pytorch list their layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from repro.errors import UserError

__all__ = ["Part", "UNet", "image_size_of", "output_path", "parts_of", "read_encoder"]

_MOST_PARTS, _LARGEST_ASSUMED_DEPTH = 10_000, 4


@dataclass(frozen=True)
class Part:
    """One entry of a module list.

    Args:
        kind: ``fourier``, ``linear``, ``conv``, ``norm``, ``block``, ``attention``, ``inner`` (a convolution inside
            another layer) or ``gap`` (a layer without parameters).
        inputs: Input channels.
        outputs: Output channels.
        size: Side of the convolution's kernel.
        resamples: Whether a block changes the image size: it has a shortcut convolution that its channels do not need.
        filtered: Whether a filter is fused with the convolution.
    """

    kind: str
    inputs: int = 0
    outputs: int = 0
    size: int = 0
    resamples: bool = False
    filtered: bool = False


@dataclass(frozen=True)
class UNet:
    """What a module list tells about its network.

    Args:
        channels: Colour channels.
        width: Channels after the first convolution.
        level_widths: Channels of every resolution, from fine to coarse.
        attends: Whether every resolution has attention.
        num_blocks: Residual blocks on every resolution.
        fourier: Whether the embedding has random frequencies.
        conditional: Whether the network is told the noise level.
        block_resampling: Whether residual blocks change the resolution ("biggan"), not layers of their own ("ddpm").
        learned_resampling: Whether such a layer has weights.
        input_path: ``none``, ``input_skip`` or ``residual``.
        combine: ``sum`` or ``cat``.
        filtered: Whether a filter is fused with some convolution; without the paths nothing tells.
    """

    channels: int
    width: int
    level_widths: tuple[int, ...] = ()
    attends: tuple[bool, ...] = ()
    num_blocks: int = 0
    fourier: bool = False
    conditional: bool = True
    block_resampling: bool = True
    learned_resampling: bool = True
    input_path: str = "none"
    combine: str = "sum"
    filtered: bool = False

    def record(self, image_size: int) -> dict[str, Any]:
        """Returns the network part of a score_sde configuration, with that project's usual values where nothing tells.

        Args:
            image_size: Pixels a side of the images.
        """
        return {
            "sigma_min": 0.01,
            "sigma_max": 50.0,
            "num_scales": 1000,
            "dropout": 0.1,
            "nonlinearity": "swish",
            "scale_by_sigma": False,
            "skip_rescale": True,
            "fir_kernel": [1, 3, 3, 1],
            "fir": self.filtered,
            "nf": self.width,
            "ch_mult": [_multiple(width, self.width) for width in self.level_widths],
            "num_res_blocks": self.num_blocks,
            "attn_resolutions": [image_size >> level for level, attends in enumerate(self.attends) if attends],
            "embedding_type": "fourier" if self.fourier else "positional",
            "conditional": self.conditional,
            "resblock_type": "biggan" if self.block_resampling else "ddpm",
            "resamp_with_conv": self.learned_resampling,
            "progressive_input": self.input_path,
            "progressive_combine": self.combine,
        }


def _multiple(channels: int, width: int) -> float:
    return channels // width if channels % width == 0 else channels / width


def parts_of(tensors: Mapping[str, Tensor], prefix: str) -> list[Part]:
    """Returns the entries of the module list with this name, in their order.

    Raises:
        UserError: an entry that no U-Net of score_sde has.
    """
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            number, _, rest = name[len(prefix) + 1 :].partition(".")
            if not number.isdecimal() or int(number) >= _MOST_PARTS:
                raise UserError(f"score_sde tensor {name[:60]!a} has no place in a list of layers")
            layers.setdefault(int(number), {})[rest] = tuple(tensor.shape)
    return [_part(layers.get(number), f"{prefix}.{number}") for number in range(max(layers, default=-1) + 1)]


def _part(shapes: dict[str, tuple[int, ...]] | None, where: str) -> Part:
    if shapes is None:
        return Part("gap")
    own = shapes.get("weight", ())
    if shapes.keys() == {"W"}:
        return Part("fourier")
    if shapes.keys() == {"weight", "bias"} and len(own) in (1, 2, 4):
        kind = {1: "norm", 2: "linear", 4: "conv"}[len(own)]
        return Part(kind, own[1] if len(own) > 1 else own[0], own[0], own[2] if len(own) == 4 else 0)
    if "GroupNorm_0.weight" in shapes and len(shapes.get("Conv_0.weight", ())) == 4:
        outputs, inputs = shapes["Conv_0.weight"][:2]
        return Part("block", inputs, outputs, resamples="Conv_2.weight" in shapes and inputs == outputs)
    if {"GroupNorm_0.weight", "NIN_3.W"} <= shapes.keys():
        return Part("attention")
    for name in ("Conv_0", "Conv2d_0"):
        if shapes.keys() == {f"{name}.weight", f"{name}.bias"} and len(shapes[f"{name}.weight"]) == 4:
            outputs, inputs, size, _ = shapes[f"{name}.weight"]
            return Part("inner", inputs, outputs, size, filtered=name == "Conv2d_0")
    raise UserError(f"{where} is no layer of score_sde's ddpm or ncsnpp; it has {', '.join(sorted(shapes))[:80]!a}")


def read_encoder(parts: list[Part]) -> tuple[UNet, list[Part]]:
    """Returns the network that begins with these entries, and the entries behind its middle.

    Raises:
        UserError: the entries are in another order than those of a U-Net of score_sde.
    """
    rest = deque(parts)
    try:
        unet = _read_embedding(rest)
        unet = _read_levels(rest, unet, _blocks_a_level(rest))
        _expect(rest, "block", "attention", "block")
    except IndexError as error:
        raise UserError("the list of layers ends inside the encoder; this is no U-Net of score_sde") from error
    return unet, list(rest)


def _expect(rest: deque[Part], *kinds: str) -> list[Part]:
    taken = [rest.popleft() for _ in kinds]
    if [part.kind for part in taken] != list(kinds):
        order = ", ".join(part.kind for part in taken)
        raise UserError(f"the layers come as {order} where a U-Net of score_sde has {', '.join(kinds)}")
    return taken


def _read_embedding(rest: deque[Part]) -> UNet:
    fourier = rest[0].kind == "fourier"
    if fourier:
        rest.popleft()
    conditional = rest[0].kind == "linear"
    if conditional:
        _expect(rest, "linear", "linear")
    (stem,) = _expect(rest, "conv")
    return UNet(stem.inputs, stem.outputs, fourier=fourier, conditional=conditional)


def _blocks_a_level(rest: deque[Part]) -> int:
    """Residual blocks before the first change of the resolution; where there is none, from the number of all."""
    first = 0
    for part in rest:
        if part.resamples or part.kind not in ("block", "attention"):
            break
        first += part.kind == "block"
    every = sum(part.kind == "block" and not part.resamples for part in rest)
    return first if first < every else (every - 3) // 2


def _read_levels(rest: deque[Part], unet: UNet, num_blocks: int) -> UNet:
    widths: list[int] = []
    attends: list[bool] = []
    changes: dict[str, Any] = {}
    while True:
        for _ in range(num_blocks):
            (block,) = _expect(rest, "block")
            attention = rest[0].kind == "attention"
            if attention:
                rest.popleft()
        widths.append(block.outputs)
        attends.append(attention)
        if rest[0].kind == "block" and not rest[0].resamples:
            break
        between = rest.popleft()
        changes |= {"block_resampling": between.resamples, "learned_resampling": between.kind != "gap"}
        changes["filtered"] = changes.get("filtered", False) or between.filtered
        if rest[0].kind == "inner":
            path = rest.popleft()
            changes |= {"input_path": "residual" if path.size == 3 else "input_skip"}
            changes |= {"filtered": changes["filtered"] or path.filtered}
            changes |= {"combine": "cat" if rest[0].inputs == 2 * block.outputs else "sum"}
    return replace(unet, level_widths=tuple(widths), attends=tuple(attends), num_blocks=num_blocks, **changes)


def output_path(decoder: list[Part], channels: int) -> str:
    """Returns the second path through a decoder: ``none``, ``output_skip`` or ``residual``.

    Args:
        decoder: The entries behind the middle.
        channels: Colour channels.
    """
    heads = [following for part, following in pairwise(decoder) if part.kind == "norm"]
    if len(heads) < 2:
        return "none"
    return "output_skip" if heads[0].outputs == channels else "residual"


def image_size_of(chosen: Any, file: Any, unet: UNet) -> int:
    """Pixels a side: as given, or CIFAR-10's for networks of no more resolutions than its own."""
    levels = len(unet.level_widths)
    assumed = 32 if levels <= _LARGEST_ASSUMED_DEPTH else None
    return chosen.settle(file, "image_size", assumed, f"its network has {levels} resolutions")
