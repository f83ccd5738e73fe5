"""The U-Nets of Song et al. as score_sde lists their layers: ``ddpm`` and ``ncsnpp`` (DDPM++, NCSN++).

Read by the formats of score_sde (PyTorch, JAX), of its multistage fork, and of the CIFAR-10 consistency models.

Source of names and settings: https://github.com/yang-song/score_sde_pytorch; Song et al. 2021, arXiv:2011.13456.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.networks.layers.blocks import Attention, Head, ResidualBlock
from repro.networks.layers.resampling import DownConv, UpConv, Upsample
from repro.released.table import Entry, copied, dropped, foreign_names, translate

__all__ = ["Walk", "settings", "shadow_names", "state_dict", "with_shadow"]

_PREFIX = "module."
_ACTIVATIONS = {"swish": "silu", "relu": "relu", "elu": "elu", "lrelu": "leaky_relu"}
_INPUT_PATHS = {"none": "standard", "input_skip": "skip", "residual": "residual"}
_OUTPUT_PATHS = {"none": "standard", "output_skip": "skip", "residual": "residual"}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for a configuration of score_sde.

    Args:
        record: Its parts ``model`` and ``data``, as plain dictionaries.

    Returns:
        ``{"name": "SongUNet", "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: a network or option that is not known, or a missing one.
    """
    model = record.get("model", {})
    kinds = {"ddpm": _ddpm_arguments, "ncsnpp": ncsnpp_arguments}
    kind = model.get("name", "")
    if kind not in kinds:
        raise unknown("score_sde network", kind, kinds)
    try:
        return {"name": "SongUNet", "args": {"width": model["nf"]} | kinds[kind](record)}
    except KeyError as error:
        raise UserError(f"the score_sde configuration of {kind!r} has no entry {error}; give the whole file") from error


def _shared_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    model, data = record["model"], record["data"]
    return {
        "image_size": data["image_size"],
        "channels": data["num_channels"],
        "channel_mult": list(model["ch_mult"]),
        "num_blocks": model["num_res_blocks"],
        "attention_at": list(model["attn_resolutions"]),
        "dropout": model["dropout"],
        "activation": _renamed("nonlinearity", model["nonlinearity"], _ACTIVATIONS),
        "noise_conditional": model["conditional"],
        "output_division": "table" if model["scale_by_sigma"] else "none",
        "sigma_min": model["sigma_min"],
        "sigma_max": model["sigma_max"],
        "num_scales": model["num_scales"],
        "centred": data["centered"],
    }


def _ddpm_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    return _shared_arguments(record) | {
        "resample": "conv" if record["model"]["resamp_with_conv"] else "plain",
        "resample_filter": None,
        "skip_scale": 1.0,
        "min_group": 1,
    }


def ncsnpp_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our arguments for an ``ncsnpp`` configuration, all but the width."""
    model = record["model"]
    fourier = _renamed("embedding_type", model["embedding_type"], {"positional": False, "fourier": True})
    resample = {"biggan": "block", "ddpm": "conv" if model["resamp_with_conv"] else "plain"}
    arguments = _shared_arguments(record) | {
        "embedding": "fourier" if fourier else "positional",
        "embedding_mult": 2 if fourier else 1,
        "fourier_scale": float(model.get("fourier_scale", 16.0)),
        "log_noise_level": fourier,
        "encoder": _renamed("progressive_input", model["progressive_input"], _INPUT_PATHS),
        "decoder": _renamed("progressive", model["progressive"], _OUTPUT_PATHS),
        "combine": _renamed("progressive_combine", model["progressive_combine"], {"sum": "sum", "cat": "cat"}),
        "resample": _renamed("resblock_type", model["resblock_type"], resample),
        "resample_filter": list(model["fir_kernel"]) if model["fir"] else None,
        "skip_scale": math.sqrt(0.5) if model["skip_rescale"] else 1.0,
    }
    if fourier and model["scale_by_sigma"]:
        arguments["output_division"] = "level"
    return arguments


def _renamed(option: str, value: str, known: Mapping[str, Any]) -> Any:
    if value.lower() not in known:
        raise unknown(f"{option} of score_sde", value, known)
    return known[value.lower()]


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Returns our state dict from the entry ``model`` of a score_sde checkpoint.

    Args:
        foreign: Tensors by name, with or without the prefix "module.".
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    return translate(_table(network), _without_prefix(foreign), network, "score_sde", ignored=_is_constant)


def shadow_names(network: nn.Module) -> list[str]:
    """Foreign names, without prefix, of the averaged tensors in the order of the list ``ema.shadow_params``.

    The list holds the trained parameters only: the frozen frequencies of a Fourier embedding are not in it.
    """
    return [name for name in foreign_names(_table(network)) if not _is_frozen(name)]


def with_shadow(
    foreign: Mapping[str, Tensor], shadow_params: Sequence[Tensor], network: nn.Module
) -> dict[str, Tensor]:
    """Returns the foreign tensors with the averaged parameters of the checkpoint in place of the raw ones.

    Args:
        foreign: The entry ``model`` of the checkpoint.
        shadow_params: The list ``ema.shadow_params`` of the same checkpoint.
        network: The network built from :func:`settings`.

    Returns:
        A mapping for :func:`state_dict`.

    Raises:
        UserError: the list has another length.
    """
    return replace_shadow(_without_prefix(foreign), shadow_params, shadow_names(network))


def replace_shadow(
    foreign: Mapping[str, Tensor], shadow_params: Sequence[Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """As :func:`with_shadow`, for given names."""
    if len(names) != len(shadow_params):
        raise UserError(
            f"the checkpoint holds {len(shadow_params)} averaged tensors, the network has {len(names)} trained ones; "
            "check the settings it was trained with"
        )
    return dict(foreign) | dict(zip(names, shadow_params, strict=True))


def _without_prefix(foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_PREFIX): tensor for name, tensor in foreign.items()}


def _is_constant(name: str) -> bool:
    return name == "sigmas" or _is_frozen(name)


def _is_frozen(name: str) -> bool:
    return name == "all_modules.0.W"


def _table(network: nn.Module) -> list[Entry]:
    walk = Walk("all_modules", network)
    return [*walk.embedding(), *walk.encoder(), *walk.middle(), *walk.decoder("decoder")]


class Walk:
    """Walks our network in the order of a flat foreign module list and yields the names of both.

    Args:
        prefix: Name of the foreign list.
        network: Our network.
    """

    def __init__(self, prefix: str, network: nn.Module) -> None:
        self.prefix = prefix
        self.network = network
        self.index = 0

    def name_of_next(self, kind: str) -> str:
        """Returns the foreign name of the next layer.

        Args:
            kind: ``fourier``, ``dense``, ``conv``, ``norm``, ``block``, ``attention``, ``down``, ``up`` or ``combine``.
        """
        self.index += 1
        return f"{self.prefix}.{self.index - 1}"

    def embedding(self) -> Iterator[Entry]:
        """Lists the entries of the layers that make the embedding."""
        conditioning = self.network.conditioning
        if self.network.embedding_kind == "fourier":
            name = self.name_of_next("fourier")
            if conditioning is not None:
                yield Entry((f"{name}.W",), ("conditioning.embedding.frequencies",), lambda x: (x,))
        if conditioning is not None:
            yield from copied(self.name_of_next("dense"), "conditioning.layer1", conditioning.layer1)
            yield from copied(self.name_of_next("dense"), "conditioning.layer2", conditioning.layer2)

    def encoder(self) -> Iterator[Entry]:
        """Lists the entries of the encoder."""
        encoder = self.network.encoder
        yield from copied(self.name_of_next("conv"), "encoder.stem", encoder.stem)
        for depth, level in enumerate(encoder.levels):
            ours = f"encoder.levels.{depth}"
            if level.down is not None:
                yield from self._between(level.down, f"{ours}.down")
            if level.path_in is not None:
                yield from copied(f"{self.name_of_next('combine')}.Conv_0", f"{ours}.path_in", level.path_in)
            elif level.path_down is not None:
                yield from self._between(level.path_down, f"{ours}.path_down")
            for number, block in enumerate(level.blocks):
                yield from self._block(block, f"{ours}.blocks.{number}")

    def middle(self) -> Iterator[Entry]:
        """Lists the entries of the coarsest blocks."""
        yield from self._block(self.network.middle.block1, "middle.block1")
        yield from self._block(self.network.middle.block2, "middle.block2")

    def decoder(self, name: str) -> Iterator[Entry]:
        """Lists the entries of one decoder of ours, by its name."""
        for depth, level in enumerate(self.network.get_submodule(name).levels):
            ours = f"{name}.levels.{depth}"
            if level.up is not None:
                yield from self._between(level.up, f"{ours}.up")
            for number, block in enumerate(level.blocks):
                yield from self._block(block, f"{ours}.blocks.{number}")
            if level.path_out is not None:
                yield from self._head(level.path_out, f"{ours}.path_out")
            if isinstance(level.path_up, UpConv):
                yield from self._between(level.path_up, f"{ours}.path_up")
            if level.head is not None:
                yield from self._head(level.head, f"{ours}.head")

    def _head(self, head: Head, ours: str) -> Iterator[Entry]:
        yield from copied(self.name_of_next("norm"), f"{ours}.norm", head.norm)
        yield from copied(self.name_of_next("conv"), f"{ours}.conv", head.conv)

    def _between(self, layer: nn.Module, ours: str) -> Iterator[Entry]:
        if isinstance(layer, ResidualBlock):
            yield from self._block(layer, ours)
            return
        name = self.name_of_next("up" if isinstance(layer, UpConv | Upsample) else "down")
        if isinstance(layer, DownConv | UpConv):
            filtered = self.network.settings.resample_filter is not None
            yield from copied(f"{name}.{'Conv2d_0' if filtered else 'Conv_0'}", f"{ours}.conv", layer.conv)

    def _block(self, block: ResidualBlock, ours: str) -> Iterator[Entry]:
        name = self.name_of_next("block")
        pairs = (
            ("GroupNorm_0", "norm1"),
            ("Conv_0", "conv1"),
            ("Dense_0", "affine"),
            ("GroupNorm_1", "norm2"),
            ("Conv_1", "conv2"),
        )
        for theirs, own in pairs:
            layer = getattr(block, own)
            if layer is None:
                yield from dropped(f"{name}.{theirs}")
            else:
                yield from copied(f"{name}.{theirs}", f"{ours}.{own}", layer)
        if block.shortcut is not None and self.network.settings.resample == "block":
            yield from copied(f"{name}.Conv_2", f"{ours}.shortcut", block.shortcut)
        elif block.shortcut is not None:
            yield _nin(f"{name}.NIN_0", f"{ours}.shortcut", convolution=True)
        if block.attention is not None:
            yield from self._attention(block.attention, f"{ours}.attention")

    def _attention(self, attention: Attention, ours: str) -> Iterator[Entry]:
        name = self.name_of_next("attention")
        yield from copied(f"{name}.GroupNorm_0", f"{ours}.norm", attention.norm)
        layers = tuple(f"{name}.NIN_{number}.{part}" for number in range(3) for part in "Wb")
        yield Entry(layers, (f"{ours}.qkv.weight", f"{ours}.qkv.bias"), _stack)
        yield _nin(f"{name}.NIN_3", f"{ours}.proj")


def _stack(*layers: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat(layers[::2], dim=1).T, torch.cat(layers[1::2])


def _nin(theirs: str, ours: str, convolution: bool = False) -> Entry:
    def change(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return (weight.T[:, :, None, None] if convolution else weight.T), bias

    return Entry((f"{theirs}.W", f"{theirs}.b"), (f"{ours}.weight", f"{ours}.bias"), change)
