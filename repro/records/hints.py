"""Type hints of constructors as data: which classes they declare, and whether a plain value fits them."""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from repro.registry import constructors_of

__all__ = ["UNKNOWN", "classes_in", "fits", "hints_of", "parts_of", "required_of"]

UNKNOWN = inspect.Parameter.empty
"""Stands for the hint of an argument that has none."""

_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None), Enum, PurePath)
_LISTS = (list, tuple, Sequence, Iterable)


def parts_of(hint: Any) -> Iterator[Any]:
    """Returns a type hint and those that it is made of, except inside mappings, callables and literals."""
    yield hint
    if get_origin(hint) in (dict, Mapping, type, Callable, Literal):
        return
    for part in get_args(hint):
        yield from parts_of(part)


def classes_in(hint: Any) -> tuple[type, ...]:
    """Returns the classes that a type hint declares for objects, those for plain data left out.

    Example:
        >>> from repro.kernels import Kernel
        >>> classes_in(Kernel | None) == (Kernel,)
        True
        >>> classes_in(dict[str, int] | list[float])
        ()
    """
    classes = [part for part in parts_of(hint) if inspect.isclass(part) and get_origin(part) is None]
    return tuple(
        dict.fromkeys(
            part
            for part in classes
            if part is not object
            and part is not UNKNOWN
            and not issubclass(part, (*_PLAIN, os.PathLike))
            and part.__module__ not in ("typing", "collections.abc")
        )
    )


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the constructor's arguments with their type hints, those that it passes on to its bases included.

    Example:
        >>> from repro.kernels import VP
        >>> hints_of(VP)["rate_max"]
        <class 'float'>
    """
    collected: dict[str, Any] = {}
    for init in constructors_of(cls):
        try:
            hints = typing.get_type_hints(init)
        except (NameError, TypeError):  # a name that only a type checker imports
            hints = {}
        for parameter in list(inspect.signature(init).parameters.values())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                collected.setdefault(parameter.name, hints.get(parameter.name, UNKNOWN))
    return collected


def required_of(cls: type) -> list[str]:
    """Returns the arguments without which a class cannot be built.

    Example:
        >>> from repro.data import ImageArchive
        >>> required_of(ImageArchive)
        ['path']
    """
    init = next(constructors_of(cls))
    parameters = list(inspect.signature(init).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in kinds]


def fits(value: Any, hint: Any) -> bool:
    """Says whether a plain value may stand where a type hint is; True where the hint does not say.

    Example:
        >>> fits([1, 2], list[int]), fits("x", int | None), fits(3, float)
        (True, False, True)
    """
    if isinstance(hint, typing.TypeVar) or hint in (Any, UNKNOWN, object):
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin in _LISTS or hint in _LISTS:
        return _fits_list(value, hint, parts)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return isinstance(value, dict)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    return value is not None and not (classes_in(hint) and isinstance(value, bool | int | float | str | list))


def _fits_list(value: Any, hint: Any, parts: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return isinstance(value, str) and (get_origin(hint) or hint) in (Sequence, Iterable) and str in parts
    if (get_origin(hint) or hint) is tuple and parts and parts[-1] is not ...:
        return len(value) == len(parts) and all(fits(item, part) for item, part in zip(value, parts, strict=True))
    return not parts or all(fits(item, parts[0]) for item in value)
