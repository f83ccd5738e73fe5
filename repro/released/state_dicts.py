"""The state dicts in a file, wherever they lie in it: found before any format is asked.

People keep weights in many ways: bare, below ``model``, ``state_dict``, ``ema`` or ``net``, several levels deep, as a
pickled module, with a name in front of every tensor's (``module.``, ``_orig_mod.``, ``model.``), averaged and raw ones
side by side. Here every mapping from names to tensors in the content is listed, with and without what stands in front
of its names, so that a format only has to know its own names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from repro.errors import UserError
from repro.released.pickles import Record

__all__ = [
    "AVERAGED",
    "UNKNOWN",
    "StateDict",
    "Weights",
    "choose",
    "is_averaged",
    "is_of_optimizer",
    "pickled_modules",
    "shadow_in",
    "state_dicts_in",
    "state_of",
]

AVERAGED, UNKNOWN = "averaged weights", "weights that may be averaged or raw"
_AVERAGED = re.compile(r"(^|[^a-z])ema([^a-z]|$)|averag|shadow|polyak|swa_", re.IGNORECASE)
_MOMENTS = re.compile(
    r"opt_states?|optim(izer)?_states?|param_states|mu|nu|exp_avg\w*|grads?|momentum(_buffer)?|moments?", re.IGNORECASE
)
_GROUPS = ("_parameters", "_buffers", "_modules")
_MOST_NODES, _DEEPEST, _MOST_PREFIXES = 100_000, 8, 4


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and where they lie.

    Attributes:
        tensors: The tensors.
        path: Keys that lead to them in the content.
        averaged: Whether a word on that path, or taken off their names, says that they are averages over the training.
    """

    tensors: Mapping[str, Tensor]
    path: tuple[str, ...] = ()
    averaged: bool = False


@dataclass(frozen=True)
class Weights:
    """The weights of one network in a file.

    Attributes:
        tensors: Those to sample with: the averaged ones where the file has any.
        raw: Those of the last step, where the file has both; else None.
        kind: Which ``tensors`` are, in words.
    """

    tensors: dict[str, Tensor]
    raw: dict[str, Tensor] | None
    kind: str


def state_dicts_in(content: Any, name: str = "") -> list[StateDict]:
    """Returns every mapping from names to tensors in a content, outer ones first; see the module.

    Args:
        content: As :func:`repro.released.containers.read_content` gives it.
        name: The file's name, which may say that its weights are averaged.
    """
    averaged = is_averaged(name)
    return [form for held in _held(content) for form in _forms(held.tensors, held.path, held.averaged or averaged)]


def choose(state_dicts: list[StateDict], fits: Callable[[Mapping[str, Tensor]], bool]) -> Weights | None:
    """Returns the weights whose names fit; None when there are none.

    Args:
        state_dicts: From :func:`state_dicts_in`.
        fits: Whether names are those of the wanted network; looks at names and shapes only.
    """
    fitting = [each for each in state_dicts if fits(each.tensors)]
    if not fitting:
        return None
    averaged = next((each for each in fitting if each.averaged), None)
    last = next((each for each in fitting if not each.averaged), None)
    if averaged is not None:
        raw = dict(last.tensors) if last is not None and last.tensors.keys() == averaged.tensors.keys() else None
        return Weights(dict(averaged.tensors), raw, AVERAGED)
    last = fitting[0]  # none of them is averaged
    where = ".".join(last.path)
    kind = f"raw weights (of the entry {where!a:.60})" if where else UNKNOWN
    return Weights(dict(last.tensors), None, kind)


def shadow_in(content: Any) -> list[Tensor] | None:
    """Returns the averaged tensors that are kept as a list ``shadow_params`` without names; None when there is none.

    Raises:
        UserError: something of that name that is no list of tensors.
    """
    for node, _ in _nodes(content):
        if isinstance(node, Mapping) and "shadow_params" in node:
            shadow = node["shadow_params"]
            if not isinstance(shadow, list | tuple) or not all(isinstance(each, Tensor) for each in shadow):
                raise UserError("its entry 'shadow_params' is no list of tensors")
            return list(shadow)
    return None


def state_of(module: Record) -> dict[str, Tensor]:
    """Returns the state dict of a pickled module: its parameters and buffers, and those of the modules inside.

    Raises:
        UserError: it is no module, holds something else than modules, or itself.
    """
    tensors: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    for count in range(_MOST_NODES):
        if not waiting:
            return tensors
        prefix, record = waiting.pop()
        if not (isinstance(record, Record) and _is_module(record)):
            break
        *held, inside = (record.state[group] for group in _GROUPS)
        tensors |= {f"{prefix}{name}": value for group in held for name, value in group.items() if value is not None}
        waiting += [(f"{prefix}{name}.", part) for name, part in inside.items() if part is not None]
        if prefix.count(".") > 4 * _DEEPEST or len(waiting) + len(tensors) + count > _MOST_NODES:
            break
    raise UserError("the pickled module is damaged: it has parts that are no modules, or holds itself")


def is_averaged(word: str) -> bool:
    """Says whether a name says that something is an average over the training."""
    return bool(_AVERAGED.search(word))


def is_of_optimizer(word: str) -> bool:
    """Says whether a name is that of what an optimiser keeps of every tensor, under the names of the weights."""
    return bool(_MOMENTS.fullmatch(word))


def pickled_modules(content: Any, names: Container[str]) -> list[tuple[Record, tuple[str, ...]]]:
    """Returns the pickled modules of some classes, wherever they lie, outer ones first, with the keys that lead there.

    Args:
        content: As :func:`repro.released.containers.read_content` gives it.
        names: Names of the classes. A module that holds nothing but one other is looked through.
    """
    modules = []
    for node, path in _nodes(content):
        inner: Any = node
        while isinstance(inner, Record) and inner.name not in names and _is_module(inner):
            inside = inner.state["_modules"]
            inner = next(iter(inside.values())) if len(inside) == 1 else None
        if isinstance(inner, Record) and inner.name in names:
            modules.append((inner, path))
    return modules


def _nodes(content: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every mapping and record in a content, each once, outer ones first, with the keys that lead to it."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(content, ())]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_NODES:
        level, waiting = waiting, []
        for node, path in level:
            if id(node) in seen or not isinstance(node, dict | list | tuple | Record):
                continue
            seen.add(id(node))
            inside: list[tuple[Any, Any]]
            if isinstance(node, Record):
                yield node, path
                inside = [] if _is_module(node) else [*node.state.items(), *node.items.items()]
            elif isinstance(node, dict):
                yield node, path
                inside = [*node.items()]
            else:
                inside = [*enumerate(node)]
            if len(path) < _DEEPEST:
                named = ((value, str(key)[:60]) for key, value in inside)
                waiting += [(value, (*path, key)) for value, key in named if not is_of_optimizer(key)]
            if len(waiting) > _MOST_NODES:
                break


def _is_module(record: Record) -> bool:
    return all(isinstance(record.state.get(group), dict) for group in _GROUPS)


def _held(content: Any) -> Iterator[StateDict]:
    for node, path in _nodes(content):
        averaged = any(map(is_averaged, path))
        if isinstance(node, Record):
            if _is_module(node):
                with contextlib.suppress(UserError):  # a damaged module that no format needs decides nothing
                    tensors = {name: each for name, each in state_of(node).items() if isinstance(each, Tensor)}
                    yield StateDict(tensors, path, averaged)
            continue
        tensors = {name: each for name, each in node.items() if isinstance(name, str) and isinstance(each, Tensor)}
        if tensors:
            yield StateDict(tensors, path, averaged)


def _forms(
    tensors: Mapping[str, Tensor], path: tuple[str, ...], averaged: bool, left: int = _MOST_PREFIXES
) -> Iterator[StateDict]:
    """The tensors as they are named; then, for every first word of their names, those behind it without that word."""
    averaged = averaged or tensors.keys() >= {"n_averaged"}
    yield StateDict(tensors, path, averaged)
    behind: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        first, dot, rest = name.partition(".")
        if dot and not first.isdecimal():
            behind.setdefault(first, {})[rest] = tensor
    for first, inside in behind.items() if left else ():
        yield from _forms(inside, path, averaged or is_averaged(first), left - 1)
