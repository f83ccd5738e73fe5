"""Networks of NVlabs/edm (``training/networks.py``): SongUNet and DhariwalUNet, inside any of its four wrappers.

Source of names and settings: https://github.com/NVlabs/edm; Karras et al. 2022, arXiv:2206.00364.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.networks.layers.blocks import BlockSettings, Head, ResidualBlock
from repro.networks.layers.resampling import DownConv, Downsample, Upsample, check_filter
from repro.released.table import Entry, copied, stacked_qkv, translate

__all__ = ["block", "block_state_dict", "settings", "state_dict"]

_PREFIX = "model."
_WRAPPER = {
    "img_resolution", "img_channels", "label_dim", "use_fp16", "model_type", "class_name",
    "sigma_min", "sigma_max", "sigma_data", "beta_d", "beta_min", "M", "epsilon_t", "C_1", "C_2",
}  # fmt: skip
_COMMON = {
    "model_channels": "width",
    "channel_mult": "channel_mult",
    "channel_mult_emb": "hidden_mult",
    "num_blocks": "num_blocks",
    "attn_resolutions": "attention_at",
    "dropout": "dropout",
    "label_dropout": "label_dropout",
    "augment_dim": "augment_dim",
}
_SONG = _COMMON | {
    "embedding_type": "embedding",
    "channel_mult_noise": "embedding_mult",
    "encoder_type": "encoder",
    "decoder_type": "decoder",
    "resample_filter": "resample_filter",
}
_DEFAULT_TYPE = {"VPPrecond": "SongUNet", "VEPrecond": "SongUNet"}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Our network for the constructor arguments of an EDM wrapper (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond).

    Args:
        record: The wrapper's keyword arguments, those of the network among them; ``class_name`` names the wrapper
            (EDMPrecond when left out; iDDPMPrecond's network has twice the output channels).

    Returns:
        ``{"name": ..., "args": {...}}`` for :func:`repro.registry.build`.

    Raises:
        UserError: unknown network or argument.
    """
    kinds = {"SongUNet": "SongUNet", "DhariwalUNet": "ADM"}
    kind = record.get("model_type", _DEFAULT_TYPE.get(_wrapper(record), "DhariwalUNet"))
    if kind not in kinds:
        raise unknown("EDM network", kind, kinds)
    arguments = song_arguments(record) if kind == "SongUNet" else _arguments(record, _COMMON, {})
    return {"name": kinds[kind], "args": arguments}


def song_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our arguments of :class:`SongUNet` for the record of a wrapper around EDM's class of that name."""
    return _arguments(record, _SONG, {"channel_mult": [1, 2, 2, 2], "dropout": 0.10})


def _wrapper(record: Mapping[str, Any]) -> str:
    return str(record.get("class_name", "EDMPrecond")).rpartition(".")[2]


def _arguments(record: Mapping[str, Any], names: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    for argument in record:
        if argument not in names and argument not in _WRAPPER:
            raise unknown("argument of an EDM network", argument, sorted({*names, *_WRAPPER}))
    known = dict(defaults) | {argument: value for argument, value in record.items() if argument in names}
    return _wrapper_arguments(record) | {names[argument]: value for argument, value in known.items()}


def _wrapper_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    for argument in ("img_resolution", "img_channels"):
        if argument not in record:
            raise UserError(f"the EDM record has no {argument!r}; it is not the record of a whole EDM network")
    channels = record["img_channels"]
    doubled = _wrapper(record) == "iDDPMPrecond"
    return {
        "image_size": record["img_resolution"],
        "channels": channels,
        "num_classes": record.get("label_dim", 0),
        "null_class": bool(record.get("label_dim", 0)),
        "out_channels": 2 * channels if doubled else channels,
    }


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of an EDM wrapper (names begin with "model.") or of its inner network into ours.

    Args:
        foreign: EDM's tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    if any(name.startswith(_PREFIX) for name in foreign):
        foreign = {name.removeprefix(_PREFIX): tensor for name, tensor in foreign.items()}
    return translate(list(_entries(network)), foreign, network, "EDM", ignored=is_constant)


def block(record: Mapping[str, Any]) -> ResidualBlock:
    """Returns our residual block for the constructor arguments of EDM's ``UNetBlock``, which is ADM's by default."""
    known = inspect.signature(BlockSettings).parameters
    shared = {argument: value for argument, value in record.items() if argument in known}
    settings = BlockSettings(
        **{
            "dropout": 0.0,
            "skip_scale": 1.0,
            "eps": 1e-5,
            "num_heads": None,
            "channels_per_head": 64,
            "adaptive_scale": True,
        }
        | shared
        | {"resample_filter": check_filter(record.get("resample_filter", [1, 1]))},
        embedding=record["emb_channels"],
        activation="silu",
        max_groups=32,
        min_group=4,
        resample="block",
        symmetric_stride=True,
        resample_shortcut=record.get("resample_proj", False),
        scheme="fan_in",
        shortcut_gain=1.0,
        attention_gain=1.0,
        zero_gain=0.0,
    )
    resample = Downsample if record.get("down") else Upsample if record.get("up") else None
    return ResidualBlock(
        settings,
        record["in_channels"],
        record["out_channels"],
        record.get("attention", False),
        None if resample is None else resample(settings.resample_filter),
    )


def block_state_dict(foreign: Mapping[str, Tensor], block: ResidualBlock) -> dict[str, Tensor]:
    """Returns our state dict of a :func:`block` from that of a single ``UNetBlock``."""
    return translate(list(block_entries("", "", block)), foreign, block, "EDM block", ignored=is_constant)


def is_constant(name: str) -> bool:
    """Says whether a foreign tensor follows from the settings: resampling filters and iDDPM's table of noise levels."""
    return name == "u" or name.endswith("resample_filter")


def _entries(network: nn.Module) -> Iterator[Entry]:
    yield from mapping_entries(network)
    yield from encoder_entries(network)
    yield from middle_entries(network, "middle", "dec")
    yield from decoder_entries(network, "decoder", "dec")


def mapping_entries(network: nn.Module) -> Iterator[Entry]:
    """Lists the entries of the layers that make the embedding."""
    conditioning = network.conditioning
    if hasattr(conditioning.embedding, "frequencies"):
        yield Entry(("map_noise.freqs",), ("conditioning.embedding.frequencies",), lambda x: (x,))
    for theirs, ours in (("label", "label"), ("augment", "augment"), ("layer0", "layer1"), ("layer1", "layer2")):
        layer = getattr(conditioning, ours)
        if layer is not None:
            yield from copied(f"map_{theirs}", f"conditioning.{ours}", layer)


def encoder_entries(network: nn.Module) -> Iterator[Entry]:
    """Lists the entries of the encoder."""
    for depth, (level, size) in enumerate(zip(network.encoder.levels, network.sizes, strict=True)):
        theirs, ours = f"enc.{size}x{size}", f"encoder.levels.{depth}"
        if level.down is None:
            yield from copied(f"{theirs}_conv", "encoder.stem", network.encoder.stem)
        else:
            yield from block_entries(f"{theirs}_down", f"{ours}.down", level.down)
        if isinstance(level.path_down, DownConv):
            yield from copied(f"{theirs}_aux_residual", f"{ours}.path_down.conv", level.path_down.conv)
        elif level.path_in is not None:
            yield from copied(f"{theirs}_aux_skip", f"{ours}.path_in", level.path_in)
        for index, block in enumerate(level.blocks):
            yield from block_entries(f"{theirs}_block{index}", f"{ours}.blocks.{index}", block)


def middle_entries(network: nn.Module, ours: str, theirs: str) -> Iterator[Entry]:
    """Lists the entries of the two blocks at the coarsest resolution, which EDM counts to its decoder."""
    middle, size = network.get_submodule(ours), network.sizes[-1]
    yield from block_entries(f"{theirs}.{size}x{size}_in0", f"{ours}.block1", middle.block1)
    yield from block_entries(f"{theirs}.{size}x{size}_in1", f"{ours}.block2", middle.block2)


def decoder_entries(network: nn.Module, ours: str, theirs: str) -> Iterator[Entry]:
    """Lists the entries of one decoder, ADM's output layers included."""
    levels = network.get_submodule(ours).levels
    for depth, (level, size) in enumerate(zip(levels, reversed(network.sizes), strict=True)):
        stem, own = f"{theirs}.{size}x{size}", f"{ours}.levels.{depth}"
        if level.up is not None:
            yield from block_entries(f"{stem}_up", f"{own}.up", level.up)
        for index, block in enumerate(level.blocks):
            yield from block_entries(f"{stem}_block{index}", f"{own}.blocks.{index}", block)
        if level.head is not None:
            aux = "out" if network.conditioning.late_labels else f"{stem}_aux"
            yield from _head_entries(aux, f"{own}.head", level.head)


def _head_entries(theirs: str, ours: str, head: Head) -> Iterator[Entry]:
    yield from copied(f"{theirs}_norm", f"{ours}.norm", head.norm)
    yield from copied(f"{theirs}_conv", f"{ours}.conv", head.conv)


def block_entries(theirs: str, ours: str, block: ResidualBlock) -> Iterator[Entry]:
    """Lists the entries of one ``UNetBlock``.

    Args:
        theirs: Name of the foreign block.
        ours: Name of our block.
        block: Our block.
    """
    theirs, ours = (f"{theirs}.", f"{ours}.") if theirs else ("", "")
    pairs = (("norm0", "norm1"), ("conv0", "conv1"), ("affine", "affine"), ("norm1", "norm2"), ("conv1", "conv2"))
    for foreign, own in (*pairs, ("skip", "shortcut")):
        layer = getattr(block, own)
        if layer is not None:
            yield from copied(theirs + foreign, ours + own, layer)
    if block.attention is not None:
        yield from copied(f"{theirs}norm2", f"{ours}attention.norm", block.attention.norm)
        yield from stacked_qkv(f"{theirs}qkv", f"{ours}attention.qkv", block.attention.heads)
        proj = block.attention.proj
        yield from copied(f"{theirs}proj", f"{ours}attention.proj", proj, lambda weight: weight.flatten(1))
