"""Tables of names: which foreign tensors become which of ours, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.errors import UserError

__all__ = ["Entry", "copied", "dropped", "foreign_names", "stacked_qkv", "translate"]


@dataclass(frozen=True)
class Entry:
    """Some foreign tensors that become some of ours.

    Args:
        foreign: Foreign names, in the order in which the foreign module lists its parameters.
        ours: Our names.
        change: From the foreign tensors, in the order of ``foreign``, to ours, in the order of ``ours``.
    """

    foreign: tuple[str, ...]
    ours: tuple[str, ...]
    change: Callable[..., Sequence[Tensor]]


def copied(
    foreign: str, ours: str, module: nn.Module, change: Callable[[Tensor], Tensor] = lambda weight: weight
) -> Iterator[Entry]:
    """Lists the entries for the weight and, where our module has one, the bias of a layer.

    Args:
        foreign: Name of the foreign layer.
        ours: Name of our layer.
        module: Our layer.
        change: Applied to the weight.
    """
    yield Entry((f"{foreign}.weight",), (f"{ours}.weight",), lambda weight: (change(weight),))
    if module.bias is not None:
        yield Entry((f"{foreign}.bias",), (f"{ours}.bias",), lambda bias: (bias,))


def dropped(foreign: str) -> Iterator[Entry]:
    """Lists the entries for a foreign layer that its network holds and never uses; ours has none."""
    for part in ("weight", "bias"):
        yield Entry((f"{foreign}.{part}",), (), lambda _: ())


def stacked_qkv(foreign: str, ours: str, interleaved_heads: int | None = None) -> Iterator[Entry]:
    """Lists the entries for one foreign 1 x 1 convolution that gives query, key and value.

    Args:
        foreign: Name of the foreign layer.
        ours: Name of our linear layer, whose outputs are ordered (query, key, value), head, channel.
        interleaved_heads: None for the same order; else the number of heads of the order head, channel,
            (query, key, value).
    """

    def ordered(x: Tensor) -> tuple[Tensor]:
        x = x.flatten(1) if x.ndim > 1 else x
        if interleaved_heads is not None:
            x = x.unflatten(0, (interleaved_heads, -1, 3)).movedim(2, 0).flatten(0, 2)
        return (x,)

    yield Entry((f"{foreign}.weight",), (f"{ours}.weight",), ordered)
    yield Entry((f"{foreign}.bias",), (f"{ours}.bias",), ordered)


def foreign_names(table: Sequence[Entry]) -> list[str]:
    """Returns all foreign names, in the order in which the foreign module lists them."""
    return [name for entry in table for name in entry.foreign]


def translate(
    table: Sequence[Entry],
    foreign: Mapping[str, Tensor],
    network: nn.Module,
    peer: str,
    ignored: Callable[[str], bool] = lambda name: False,
) -> dict[str, Tensor]:
    """Returns the state dict of our network from a foreign one, checked for every name and shape.

    Args:
        table: The names.
        foreign: Foreign tensors by name.
        network: Our network; gives shapes and types.
        peer: Name of the foreign project, for messages.
        ignored: Foreign names that have no counterpart (constants that follow from the settings).

    Raises:
        UserError: a tensor is missing, unexpected or of another shape; the message names the first one.
    """
    known = foreign_names(table)
    missing = [name for name in known if name not in foreign]
    taken = set(known)
    unexpected = [name for name in foreign if name not in taken and not ignored(name)]
    if missing or unexpected:
        first = f"first missing {missing[0]!r}" if missing else f"first unexpected {unexpected[0]!r}"
        raise UserError(
            f"these are not the {peer} weights of this {type(network).__name__}: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {first}; check the settings it was trained with"
        )
    expected = network.state_dict()
    result = {}
    for entry in table:
        changed = entry.change(*(foreign[name] for name in entry.foreign))
        for name, tensor in zip(entry.ours, changed, strict=True):
            if tensor.shape != expected[name].shape:
                raise UserError(
                    f"{peer} tensor {entry.foreign[0]!r} has shape {tuple(foreign[entry.foreign[0]].shape)}, which "
                    f"does not fit {name!r} of shape {tuple(expected[name].shape)}; check the settings"
                )
            result[name] = tensor.detach().to(expected[name].dtype).clone(memory_format=torch.contiguous_format)
    assert result.keys() == expected.keys(), sorted(result.keys() ^ expected.keys())
    return result
