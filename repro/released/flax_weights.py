"""The networks in a flax file, under names and in shapes as torch has them.

Kernels of convolutions are (height, width, inputs, outputs) there and (outputs, inputs, height, width) here, those of
dense layers (inputs, outputs) and (outputs, inputs); normalisations were (1, 1, 1, channels) before flax 0.3.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from repro.released.state_dicts import StateDict, Weights, is_averaged, is_of_optimizer

__all__ = ["as_torch", "flax_state_dicts", "value_of", "weights_as_torch"]

_DEEPEST = 6


def flax_state_dicts(content: Any) -> list[StateDict]:
    """Returns every subtree of a flax file as tensors by name (``Conv_0/kernel``), those nearest to its top first."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(content, ())]
    subtrees = []
    while waiting:
        level, waiting = waiting, []
        for node, path in level:
            if not isinstance(node, Mapping):
                continue
            subtrees.append(StateDict(dict(_leaves(node)), path, any(map(is_averaged, path))))
            if len(path) < _DEEPEST:
                waiting += [(value, (*path, key)) for key, value in node.items() if not is_of_optimizer(key)]
    return subtrees


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in node.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")


def value_of(content: Any, key: str) -> Any:
    """Returns what stands under a key, the one nearest to the top of a flax file; None where nothing does."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [node for node in level if isinstance(node, Mapping)]
        for node in level:
            if key in node:
                return node[key]
        level = [value for node in level for value in node.values()]
    return None


def as_torch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of one flax network under names such as ``Conv_0.weight``, in torch's order of dimensions."""
    return dict(_converted(name, tensor) for name, tensor in tensors.items())


def weights_as_torch(weights: Weights) -> Weights:
    """Returns the weights of one flax network, averaged and raw, as :func:`as_torch` names and turns them."""
    raw = None if weights.raw is None else as_torch(weights.raw)
    return replace(weights, tensors=as_torch(weights.tensors), raw=raw)


def _converted(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    layer, _, part = name.rpartition("/")
    layer = layer.replace("/", ".")
    if part in ("kernel", "weight"):
        changed = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor
        return f"{layer}.weight", changed
    if part in ("scale", "bias"):
        norm = part == "scale" or tensor.shape[:-1].numel() == 1 < tensor.ndim == 4
        return f"{layer}.{'weight' if part == 'scale' else 'bias'}", tensor.flatten() if norm else tensor
    return f"{layer}.{part}", tensor
