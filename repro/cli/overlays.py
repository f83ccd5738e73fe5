"""Config files that build on others: ``config`` names what one starts from, ``by_class`` goes over any system."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from repro import registry
from repro.cli.classes import GROUP_OF
from repro.cli.named_configs import config_path
from repro.errors import UserError, unknown

__all__ = ["starts_from", "written_out"]

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


def written_out(arguments: Sequence[str]) -> list[str]:
    """Replaces, in a command line, every name of a config by its file, and every file that builds on others.

    A file with ``config: NAME`` or ``config: [NAME, ...]`` comes after those configs, which must not build on others
    in turn. A file with ``by_class: {Class: {argument: value}}`` is written out for the classes before it: where a
    config before it names one of the classes, its arguments become the ones set there; they win over the file's other
    settings.

    Raises:
        UserError: no such config, ``config`` or ``by_class`` of another form, an unknown class in ``by_class``, or no
            config before it that names any.
    """
    words, result, named = list(arguments), list[str](), dict[str, str]()
    while words:
        word = words.pop(0)
        if word.startswith("--config="):
            wanted = word.removeprefix("--config=")
        elif word in ("--config", "-c") and words:
            wanted = words.pop(0)
        else:
            result.append(word)
            continue
        result += [f"--config={each}" for each in _layers(wanted, named)]
    return result


def _layers(wanted: str, named: dict[str, str], depth: int = 0) -> Iterator[str]:
    """What a config becomes: file names, or settings as JSON; the classes that it names are added to ``named``."""
    if wanted.lstrip().startswith("{"):
        named |= dict(_classes(yaml.safe_load(wanted)))
        yield wanted
        return
    path = config_path(wanted)
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if not isinstance(settings, Mapping) or not settings.keys() & {_KEY, _START}:
        named |= dict(_classes(settings or {}))
        yield str(path)
        return
    if _START in settings and depth:
        raise UserError(f"config file {path} starts from another one itself; name that one too: config: [NAME, {path}]")
    for start in starts_from(path, settings):
        yield from _layers(start, named, depth + 1)
    own = {key: value for key, value in settings.items() if key != _START}
    own = _for_classes(path, own, named) if _KEY in own else own
    named |= dict(_classes(own))
    yield json.dumps(own)


def _classes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places of a config file where a class may be named, and what stands there."""
    for top in settings:
        for key, value in registry.flat(settings[top], top).items():
            if isinstance(value, str):
                yield key, value.rpartition(".")[2]


def _for_classes(path: Path, settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    by_class = settings[_KEY]
    if not (isinstance(by_class, Mapping) and all(isinstance(each, Mapping) for each in by_class.values())):
        raise UserError(f"config file {path}: {_KEY} must be of the form {{Class: {{argument: value}}}}")
    known = [name for group in GROUP_OF.values() for name in registry.names(group)]
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
