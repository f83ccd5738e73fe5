"""Residual GANs of kwotsin/mimicry (``torch_mimicry/nets``): SNGAN, WGAN-GP and its "DCGAN", at 32 to 128 pixels.

Source of names and settings: https://github.com/kwotsin/mimicry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import unknown
from repro.networks.gan import FirstBlock, ResidualGenerator
from repro.released.table import Entry, copied, translate

__all__ = ["settings", "state_dict"]

_CLASS = re.compile(r"(SNGAN|WGANGP|DCGAN)(Generator|Discriminator)(32|48|64|128|CIFAR)")
_HEAD = re.compile(r"l\d+\.")
_GENERATOR_SHIFTS = {"32": [0, 0, 0, 0], "48": [0, 1, 2, 3], "64": [0, 1, 2, 3, 4], "128": [0, 0, 1, 2, 3, 4]}
_DISCRIMINATOR_SHIFTS = {"32": [0, 0, 0, 0], "48": [4, 3, 2, 1, 0], "64": [4, 3, 2, 1, 0], "128": [4, 3, 2, 1, 0, 0]}
_HALVES = {
    "32": [True, True, False, False],
    "48": [True, True, True, True, False],
    "64": [True] * 5,
    "128": [True] * 5 + [False],
}
_WIDTHS = {"32": (256, 128), "48": (512, 1024), "64": (1024, 1024), "128": (1024, 1024)}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our generator or discriminator for a class of mimicry and its arguments.

    Args:
        record: ``{"class": "SNGANGenerator32", "nz": ..., "ngf": ..., "bottom_width": ..., "ndf": ...}``; what is left
            out takes the class's defaults, what belongs to the other network of the pair is passed over.

    Returns:
        ``{"name": ..., "args": {...}}`` for the class of that name in :mod:`repro.networks.gan`.

    Raises:
        UserError: unknown class.
    """
    match = _CLASS.fullmatch(str(record.get("class")))
    if match is None:
        raise unknown("GAN of mimicry", str(record.get("class")), ["SNGANGenerator32", "WGANGPDiscriminator32"])
    family, part, size = match.groups()
    squash = "sigmoid" if size == "CIFAR" else "tanh"
    size = "32" if size == "CIFAR" else size
    generator_width, discriminator_width = _WIDTHS[size]
    bottom = record.get("bottom_width", 6 if size == "48" else 4)
    shifts = _GENERATOR_SHIFTS[size]
    common = {"image_size": bottom << (len(shifts) - 1), "channels": 3}
    if part == "Generator":
        width = record.get("ngf", generator_width)
        args = {"latent": record.get("nz", 128), "width": [width >> shift for shift in shifts], "bottom": bottom}
        return {"name": "ResidualGenerator", "args": common | args | {"squash": squash}}
    width = record.get("ndf", discriminator_width)
    args = {"width": [width >> shift for shift in _DISCRIMINATOR_SHIFTS[size]], "halves": list(_HALVES[size])}
    kind = {"spectral_norm": family == "SNGAN", "pooling": "mean" if family == "WGANGP" else "sum"}
    return {"name": "ResidualDiscriminator", "args": common | args | kind}


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Returns our state dict from the entry ``model_state_dict`` of a mimicry checkpoint.

    Args:
        foreign: mimicry's tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    if isinstance(network, ResidualGenerator):
        return translate(list(_generator_entries(network)), foreign, network, "mimicry")
    head = next((name.split(".")[0] for name in foreign if _HEAD.match(name)), f"l{len(network.blocks) + 1}")
    return translate(list(_discriminator_entries(network, head)), foreign, network, "mimicry")


def _generator_entries(network: nn.Module) -> Iterator[Entry]:
    last = len(network.blocks) + 2
    yield from copied("l1", "stem", network.stem)
    for index, block in enumerate(network.blocks):
        theirs, ours = f"block{index + 2}", f"blocks.{index}"
        for norm, conv in (("1", "1"), ("2", "2")):
            yield from _batch_norm(f"{theirs}.b{norm}", f"{ours}.norm{norm}")
            yield from copied(f"{theirs}.c{conv}", f"{ours}.conv{conv}", block.get_submodule(f"conv{conv}"))
        yield from copied(f"{theirs}.c_sc", f"{ours}.shortcut", block.shortcut)
    yield from _batch_norm(f"b{last}", "norm")
    yield from copied(f"c{last}", "final", network.final)


def _batch_norm(theirs: str, ours: str) -> Iterator[Entry]:
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield Entry((f"{theirs}.{name}",), (f"{ours}.{name}",), lambda tensor: (tensor,))


def _discriminator_entries(network: nn.Module, head: str) -> Iterator[Entry]:
    for index, block in enumerate(network.blocks):
        theirs, ours = f"block{index + 1}", f"blocks.{index}"
        yield from _layer(f"{theirs}.c1", f"{ours}.conv1", block.conv1)
        yield from _layer(f"{theirs}.c2", f"{ours}.conv2", block.conv2)
        if isinstance(block, FirstBlock) or isinstance(block.shortcut, nn.Conv2d):
            yield from _layer(f"{theirs}.c_sc", f"{ours}.shortcut", block.shortcut)
    yield from _layer(head, "head", network.head)


def _layer(theirs: str, ours: str, layer: nn.Module) -> Iterator[Entry]:
    if not hasattr(layer, "u"):
        yield from copied(theirs, ours, layer)
        return
    for foreign, own in (("weight_orig", "weight"), ("bias", "bias"), ("weight_u", "u"), ("weight_v", "v")):
        yield Entry((f"{theirs}.{foreign}",), (f"{ours}.{own}",), lambda tensor: (tensor,))
