"""Config files that build on others: ``config`` names what one starts from, ``by_class`` goes over any system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repro import records, registry
from repro.cli.named_configs import config_path
from repro.errors import UserError, unknown
from repro.plain import parse_yaml, read_yaml

__all__ = ["layers", "read_config", "starts_from"]

_KEY = "by_class"
_START = "config"


def starts_from(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Lists the configs that a config file starts from, its key ``config``: one name or path, or a list of them.

    Raises:
        UserError: the key holds something else.
    """
    named = settings.get(_START, [])
    named = [named] if isinstance(named, str) else named
    if not (isinstance(named, list) and all(isinstance(each, str) for each in named)):
        raise UserError(f"config file {path}: {_START} must be the name of a config, or a list of names")
    return named


def layers(wanted: str, named: dict[str, str], depth: int = 0) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """The settings that a config stands for: those of the configs that it starts from, then its own.

    A file with ``config: NAME`` or ``config: [NAME, ...]`` comes after those configs, which must not build on others
    in turn. A file with ``by_class: {Class: {argument: value}}`` is written out for the classes before it: where a
    config before it names one of the classes, its arguments become the ones set there; they win over the file's other
    settings.

    Args:
        wanted: Name or path of a config, or settings as JSON.
        named: Key -> class, as named before; those that the config names are added.
        depth: How many configs have been left to get here.

    Yields:
        The file, None for JSON, and its settings.

    Raises:
        UserError: no such config, one that cannot be read, ``config`` or ``by_class`` of another form, an unknown
            class in ``by_class``, or no config before it that names any.
    """
    if wanted.lstrip().startswith("{"):
        settings = parse_yaml(wanted, "--config")
        named |= dict(_classes(settings))
        yield None, settings
        return
    path = config_path(wanted)
    settings = read_config(path)
    if _START in settings and depth:
        raise UserError(f"config file {path} starts from another one itself; name that one too: config: [NAME, {path}]")
    for start in starts_from(path, settings):
        yield from layers(start, named, depth + 1)
    own = {key: value for key, value in settings.items() if key != _START}
    own = _for_classes(path, own, named) if _KEY in own else own
    named |= dict(_classes(own))
    yield path, own


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a config file.

    Raises:
        UserError: it is a folder, cannot be read, or holds something else than ``key: value``.
    """
    if path.is_dir():
        names = sorted(file.name for file in path.glob("*.y*ml"))
        inside = f"; there are {', '.join(names[:8])} in it" if names else ""
        raise UserError(f"config file {path} is a folder, not a config file{inside}")
    settings = read_yaml(path, "config file")
    if not isinstance(settings, dict):
        held = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise UserError(f"config file {path} holds {held}; it must hold settings, key: value")
    return {str(key): value for key, value in settings.items()}


def _classes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places of a config file where a class may be named, and what stands there."""
    for top in settings:
        for key, value in records.flat(settings[top], top).items():
            if isinstance(value, str):
                yield key, value.rpartition(".")[2]


def _for_classes(path: Path, settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    by_class = settings[_KEY]
    if not (isinstance(by_class, Mapping) and all(isinstance(each, Mapping) for each in by_class.values())):
        raise UserError(f"config file {path}: {_KEY} must be of the form {{Class: {{argument: value}}}}")
    known = [name for group in registry.group_names() for name in registry.names(group)]
    for name in by_class:
        if name not in known:
            raise unknown(f"class in {_KEY} of config file {path}", str(name), known)
    places = [(key, name) for key, name in named.items() if name in by_class]
    if not places:
        raise UserError(
            f"config file {path} has settings for {', '.join(by_class)}, and no config before it names one of "
            f"them; type --config NAME --config {path}"
        )
    result = {key: value for key, value in settings.items() if key != _KEY}
    for key, name in places:
        nested = dict(by_class[name])
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = _merged(result, nested)
    return result


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merged(below[key], value) if key in below else value for key, value in above.items()}}
