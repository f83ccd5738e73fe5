"""The registered classes as the command line knows them: loaded before parsing, shown under their short names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from repro import registry
from repro.errors import UserError

__all__ = [
    "GROUP_OF",
    "check_claims",
    "class_of",
    "group_of",
    "load_classes",
    "options_of",
    "settings_of",
    "short_names",
    "specs",
]

GROUP_OF = {
    "Kernel": "kernels",
    "Network": "networks",
    "Parameterization": "parameterizations",
    "Denoiser": "denoisers",
    "Sampler": "samplers",
    "TimeDistribution": "times",
    "RecordedModule": "modules",
    "ImageData": "data",
    "Descriptor": "descriptors",
    "Operator": "operators",
}
"""Base class of a constructor's argument -> group of the names that are legal there."""


def load_classes() -> list[UserError]:
    """Imports the registered classes of every group in :data:`GROUP_OF`, so that their short names resolve.

    Returns:
        One error for each plug-in that cannot be imported; the others are there.
    """
    broken = []
    for group in GROUP_OF.values():
        for name in registry.names(group):
            try:
                registry.load(group, name)
            except UserError as error:
                broken.append(error)
    return broken


def check_claims(config: Any) -> None:
    """Raises UserError when a parsed configuration uses a name that cannot be loaded, or that two packages claim."""
    for _, spec in specs(config, ""):
        cls = class_of(spec["class_path"])
        group = _group_of_class(cls)
        if group is not None and cls.__name__ in registry.names(group):
            registry.load(group, cls.__name__)


def _group_of_class(cls: Any) -> str | None:
    if not inspect.isclass(cls):
        return None
    named = group_of(cls)
    return named[0] if named else ("networks" if cls.__name__ in registry.names("networks") else None)


def group_of(hint: Any) -> tuple[str, type] | None:
    """Group and base class that a constructor's type hint stands for, None when it is no plug-in."""
    for part in getattr(hint, "__args__", (hint,)):
        for base in getattr(part, "__mro__", ()):
            if base.__name__ in GROUP_OF and base.__module__.startswith("repro."):
                return GROUP_OF[base.__name__], base
    return None


def class_of(path: str) -> type:
    """The class at an import path that was parsed before."""
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def options_of(cls: type) -> dict[str, Any]:
    """The constructor's arguments: name -> parser action, which knows type and default."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return settings_of(parser)


def settings_of(parser: Any) -> dict[str, Any]:
    """The settings of a parser: key -> action, without those that only print help."""
    helping = ("help", "==SUPPRESS==")
    return {a.dest: a for a in parser._actions if a.dest not in helping and not a.dest.endswith(".help")}


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
        cls = class_of(path)
        group = _group_of_class(cls)
        if group and cls.__name__ in registry.names(group) and registry.load(group, cls.__name__) is cls:
            plain["class_path"] = cls.__name__
    return plain
