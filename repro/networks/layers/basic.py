"""Small shared pieces: activations, group-norm rules, weight initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import UserError

__all__ = ["ACTIVATIONS", "activation_of", "convolution", "dropout", "group_norm", "initialise", "linear"]

ACTIVATIONS = ("silu", "relu", "elu", "leaky_relu")

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def _leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the activation function of a name in :data:`ACTIVATIONS`; the leaky ReLU has slope 0.2 below zero."""
    functions: dict[str, Callable[[Tensor], Tensor]]
    functions = {"silu": F.silu, "relu": F.relu, "elu": F.elu, "leaky_relu": _leaky_relu}
    return functions[name]


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Sets entries to zero with a probability and scales the others up, in training only.

    On a CPU four entries share one random number of 64 bits, which takes a third of the time of
    :func:`torch.nn.functional.dropout`; the probability is then a multiple of 1 / 65536.

    Args:
        x: Any tensor of floats.
        probability: In [0, 1).
        training: Whether to drop at all.
    """
    if not training or not probability:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 3) // 4,))
    threshold = min(round(probability * 65536), 65535)
    keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= threshold - 32768
    return x * keep.to(x.dtype).mul_(65536 / (65536 - threshold))


def group_norm(channels: int, max_groups: int, min_group: int, eps: float) -> nn.GroupNorm:
    """Makes a group normalisation with at most ``max_groups`` groups of at least ``min_group`` channels each.

    Raises:
        UserError: the channels do not divide into that many groups.

    Example:
        >>> group_norm(48, max_groups=32, min_group=4, eps=1e-6).num_groups
        12
    """
    groups = max(1, min(max_groups, channels // min_group))
    if channels % groups:
        raise UserError(
            f"{channels} channels do not divide into {groups} groups for group normalisation; "
            f"choose width and channel_mult so that every level has a multiple of {groups} channels"
        )
    return nn.GroupNorm(groups, channels, eps=eps)


def initialise(layer: _Layer, scheme: str, gain: float = 1.0) -> _Layer:
    """Draws the weights of a convolution or linear layer anew and returns it.

    Args:
        layer: The layer.
        scheme: "xavier": uniform in +- gain sqrt(6 / (fan_in + fan_out)), bias 0 (DDPM, DDPM++, NCSN++, EDM);
            "fan_in": weight and bias uniform in +- gain / sqrt(fan_in) (ADM, PyTorch's own rule).
        gain: Factor on the bound; 0 for a layer that starts at zero.
    """
    if scheme == "xavier":
        nn.init.xavier_uniform_(layer.weight, gain)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    else:
        bound = gain / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.weight, -bound, bound)
        if layer.bias is not None:
            nn.init.uniform_(layer.bias, -bound, bound)
    return layer


def convolution(inputs: int, outputs: int, kernel: int, scheme: str, gain: float = 1.0) -> nn.Conv2d:
    """Returns a convolution that keeps the image size, initialised by :func:`initialise`."""
    return initialise(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), scheme, gain)


def linear(inputs: int, outputs: int, scheme: str, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """Returns a linear layer, initialised by :func:`initialise`."""
    return initialise(nn.Linear(inputs, outputs, bias=bias), scheme, gain)
