"""The registered classes as the command line knows them: in parsed configurations, and under their short names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace

from repro import registry

__all__ = [
    "class_of",
    "short_names",
    "specs",
]


def class_of(path: str) -> type:
    """The class at an import path that was parsed before."""
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def specs(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every ``{class_path, init_args}`` inside a parsed value, outermost first, with the key that leads to it."""
    if isinstance(value, Mapping | Namespace):
        if "class_path" in value:
            yield where, value
            value = value.get("init_args") or {}
        for key in list(value if isinstance(value, Mapping) else vars(value)):
            yield from specs(value[key], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from specs(item, f"{where}[{index}]")


def short_names(plain: Any) -> Any:
    """A dumped configuration with registered classes under their names instead of their import paths."""
    if isinstance(plain, list):
        return [short_names(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    plain = {key: short_names(item) for key, item in plain.items()}
    if isinstance(path := plain.get("class_path"), str) and "." in path:
        entry = registry.entry_of(class_of(path))
        plain["class_path"] = entry.name if entry else path
    return plain
