"""Released files of JAX projects in small, written as ``flax.serialization`` writes them, without flax."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor


def flax_bytes(tree: Any) -> bytes:
    """A tree of dictionaries with arrays at its leaves as flax packs it: arrays are extension 1."""

    def extension(value: Any) -> msgpack.ExtType:
        array = np.ascontiguousarray(value.numpy() if isinstance(value, Tensor) else value)
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    return msgpack.packb(tree, default=extension, strict_types=True)


def _kind(tensors: dict[str, Tensor], late: bool, blocks: str) -> str:
    """The class of one entry of score_sde's list of layers, read off its names; late ones are in the decoder."""
    if "GroupNorm_0.weight" in tensors and "Conv_0.weight" in tensors:
        return blocks
    if "NIN_0.W" in tensors:
        return "AttnBlock" if blocks == "ResnetBlockDDPM" else "AttnBlockpp"
    if "W" in tensors:
        return "GaussianFourierProjection"
    if "Conv2d_0.weight" in tensors or "Conv_0.weight" in tensors:
        weight = tensors.get("Conv_0.weight")
        return "Combine" if weight is not None and weight.shape[-1] == 1 else "Upsample" if late else "Downsample"
    return {1: "GroupNorm", 2: "Dense", 4: "Conv"}[tensors["weight"].ndim]


def flax_of_score_sde(
    foreign: dict[str, Tensor], old_norms: bool = False, blocks: str = "ResnetBlockBigGANpp"
) -> dict[str, Any]:
    """The tensors of a PyTorch file of score_sde under the names and in the shapes of its JAX form.

    Args:
        foreign: Tensors by name, ``all_modules.N...``.
        old_norms: Whether normalisations have the shape (1, 1, 1, channels) of flax before 0.3.6.
        blocks: Class of the residual blocks.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in foreign.items():
        if found := re.fullmatch(r"(?:module\.)?all_modules\.(\d+)\.(.*)", name):
            layers.setdefault(int(found[1]), {})[found[2]] = tensor
    counts: Counter[str] = Counter()
    tree: dict[str, Any] = {}
    for number, tensors in sorted(layers.items()):
        kind = _kind(tensors, number > max(layers) / 2, blocks)
        node = tree[f"{kind}_{counts[kind]}"] = {}
        counts[kind] += 1
        for name, tensor in tensors.items():
            *parts, last = name.split(".")
            where = node
            for part in parts:
                where = where.setdefault(part, {})
            norm = (parts or [kind])[-1].startswith("GroupNorm")
            if norm:
                where["scale" if last == "weight" else "bias"] = tensor.reshape(1, 1, 1, -1) if old_norms else tensor
            elif last == "weight":
                turned = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
                where["weight" if parts[-1:] == ["Conv2d_0"] else "kernel"] = turned.contiguous()
            else:
                where[last] = tensor.contiguous()
    return tree


def doubled(tree: Any) -> Any:
    """The tree with every array doubled: other weights under the same names."""
    return {key: doubled(value) for key, value in tree.items()} if isinstance(tree, dict) else 2 * tree


def consistency_cifar10_file(path: Path, foreign: dict[str, Tensor], target: bool = False, **options: Any) -> Path:
    """A State of openai/consistency_models_cifar10 around a network's tensors, which are its average."""
    average = flax_of_score_sde(foreign, **options)
    state = {"step": 7, "lr": 4e-4, "ema_rate": 0.9999, "opt_state": {"0": {"mu": doubled(average), "count": 7}}}
    state |= {"params": doubled(average), "params_ema": average, "model_state": {}, "rng_state": np.zeros(2, np.uint32)}
    if target:
        state["target_params"] = doubled(average)
    path.write_bytes(flax_bytes(state))
    return path


def score_sde_jax_file(path: Path, foreign: dict[str, Tensor], **options: Any) -> Path:
    """A State of score_sde in JAX around a network's tensors, which are its average."""
    average = flax_of_score_sde(foreign, **options)
    optimizer = {"target": doubled(average), "state": {"step": 7, "param_states": {}}}
    state = {"step": 7, "optimizer": optimizer, "lr": 2e-4, "model_state": {}, "ema_rate": 0.999}
    path.write_bytes(flax_bytes(state | {"params_ema": average, "rng": np.zeros(2, np.uint32)}))
    return path


def distilled_parameters(
    outputs: int = 3, classes: int = 1, mults: tuple[int, ...] = (1, 2), resample_block: bool = True, heads: int = 2
) -> dict[str, Any]:
    """Random parameters of the U-Net of diffusion_distillation: width 32, one block a resolution, attention at 4."""
    draws, width, hidden = torch.Generator().manual_seed(0), 32, 48
    widths = [width * mult for mult in mults]

    def array(*shape: int, scale: float = 0.2) -> Tensor:
        return torch.randn(shape, generator=draws) * scale

    def layer(*shape: int) -> dict[str, Tensor]:
        return {"kernel": array(*shape, scale=float(np.prod(shape[:-1])) ** -0.5), "bias": array(shape[-1])}

    def norm(channels: int) -> dict[str, Tensor]:
        return {"scale": 1 + array(channels), "bias": array(channels)}

    def block(inputs: int, channels: int) -> dict[str, Any]:
        parts = {"norm1": norm(inputs), "conv1": layer(3, 3, inputs, channels), "norm2": norm(channels)}
        parts |= {"temb_proj": layer(hidden, 2 * channels), "conv2": layer(3, 3, channels, channels)}
        return parts | ({"nin_shortcut": layer(inputs, channels)} if inputs != channels else {})

    def attention(channels: int) -> dict[str, Any]:
        split = {"kernel": (channels, heads, channels // heads), "bias": (heads, channels // heads)}
        parts = {each: {part: array(*shape) for part, shape in split.items()} for each in "qkv"}
        out = {"kernel": array(heads, channels // heads, channels), "bias": array(channels)}
        return {"norm": norm(channels), "proj_out": out} | parts

    def change(channels: int) -> dict[str, Any]:
        return block(channels, channels) if resample_block else layer(3, 3, channels, channels)

    tree: dict[str, Any] = {"dense0": layer(width, hidden), "dense1": layer(hidden, hidden)}
    if classes > 1:
        tree["class_emb"] = layer(classes, hidden)
    tree["conv_in"] = layer(3, 3, 3, width)
    skips, channels, last = [width], width, len(mults) - 1
    for level, wide in enumerate(widths):
        tree[f"down_{level}.block_0"] = block(channels, wide)
        if level == last:
            tree[f"down_{level}.attn_0"] = attention(wide)
        skips.append(channels := wide)
        if level != last:
            tree[f"down_{level}.downsample"] = change(wide)
            skips.append(wide)
    tree |= {"mid.block_1": block(wide, wide), "mid.attn_1": attention(wide), "mid.block_2": block(wide, wide)}
    for level in range(last, -1, -1):
        for number in range(2):
            tree[f"up_{level}.block_{number}"] = block(channels + skips.pop(), widths[level])
            channels = widths[level]
            if level == last:
                tree[f"up_{level}.attn_{number}"] = attention(channels)
        if level:
            tree[f"up_{level}.upsample"] = change(channels)
    return tree | {"norm_out": norm(channels), "conv_out": layer(3, 3, channels, outputs)}


def distilled_file(path: Path, steps: int | None = 4, **options: Any) -> Path:
    """A checkpoint of diffusion_distillation; a distilled one says its number of steps."""
    state = {"step": 7, "optimizer": None, "ema_params": distilled_parameters(**options)}
    path.write_bytes(flax_bytes(state | ({"num_sample_steps": steps} if steps else {})))
    return path
