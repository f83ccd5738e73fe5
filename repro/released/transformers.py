"""What the tensors of U-ViT and DiT tell about the networks, and what they leave open."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from repro.errors import UserError
from repro.released.base import ForeignFile, Format

__all__ = ["dit_record", "heads_of", "uvit_record"]

_PUBLISHED_HEADS = {384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16}


def heads_of(chosen: Format, file: ForeignFile, width: int) -> int:
    """Chooses the attention heads, which no shape tells: as given, or those of the published network of this width."""
    return chosen.settle(file, "heads", _PUBLISHED_HEADS.get(width), f"no published network has width {width}")


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != dimensions:
        raise UserError(f"the tensor {name!r} is missing or has another shape than that of a transformer on images")
    return tuple(tensors[name].shape)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the names have at the place of the pattern's group."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _side(tokens: int) -> int:
    side = math.isqrt(tokens)
    if not side or side * side != tokens:
        raise UserError(f"the network has {tokens} patches, which is no square; only square images can be read")
    return side


def _ratio(hidden: int, width: int) -> float:
    """The ratio that gives these channels, ``int(width * ratio)``."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def uvit_record(chosen: Format, file: ForeignFile, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the constructor arguments of U-ViT for a state dict, without those of several decoders.

    Args:
        chosen: The format, with the option ``heads``.
        file: The file.
        tensors: U-ViT's tensors by name.
    """
    width, channels, patch_size, _ = _shape(tensors, "patch_embed.proj.weight", 4)
    tokens = _shape(tensors, "pos_embed", 3)[1]
    hidden = _shape(tensors, "mid_block.mlp.fc1.weight", 2)[0]
    labels = next((tensors[n] for n in ("label_emb.weight", "label_emb.0.weight") if n in tensors), None)
    classes = 0 if labels is None else labels.shape["label_emb.0.weight" in tensors]
    first_out = re.compile(r"(out_blocks\.0|de_modules\.0\.0)\.skip_linear\.weight")
    return {
        "img_size": _side(tokens - (2 if classes else 1)) * patch_size,
        "patch_size": patch_size,
        "in_chans": channels,
        "embed_dim": width,
        "depth": 2 * _count(tensors, r"in_blocks\.(\d+)\."),
        "num_heads": heads_of(chosen, file, width),
        "mlp_ratio": _ratio(hidden, width),
        "qkv_bias": "mid_block.attn.qkv.bias" in tensors,
        "mlp_time_embed": "time_embed.0.weight" in tensors,
        "num_classes": classes or -1,
        "norm_layer": "LayerNorm" if "mid_block.norm1.bias" in tensors else "RMSNorm",
        "conv": any(name.startswith("final_layer.") for name in tensors),
        "skip": any(first_out.fullmatch(name) for name in tensors),
    }


def dit_record(chosen: Format, file: ForeignFile, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the constructor arguments of DiT for a state dict, without those about classes.

    Args:
        chosen: The format, with the option ``heads``.
        file: The file.
        tensors: DiT's tensors by name.
    """
    width, channels, patch_size, _ = _shape(tensors, "x_embedder.proj.weight", 4)
    hidden = _shape(tensors, "blocks.0.mlp.fc1.weight", 2)[0]
    outputs = _shape(tensors, "final_layer.linear.weight", 2)[0]
    return {
        "input_size": _side(_shape(tensors, "pos_embed", 3)[1]) * patch_size,
        "patch_size": patch_size,
        "in_channels": channels,
        "hidden_size": width,
        "depth": _count(tensors, r"blocks\.(\d+)\."),
        "num_heads": heads_of(chosen, file, width),
        "mlp_ratio": _ratio(hidden, width),
        "learn_sigma": outputs == 2 * patch_size**2 * channels,
    }
