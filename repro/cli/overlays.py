"""Config files that go over any system: ``by_class`` in one of them holds settings for whichever class is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from repro import registry
from repro.cli.classes import GROUP_OF
from repro.errors import UserError, unknown

__all__ = ["with_class_settings"]

_KEY = "by_class"


def with_class_settings(arguments: Sequence[str]) -> list[str]:
    """A command line in which every config file with ``by_class`` is written out for the classes before it.

    Such a file holds ``by_class: {Class: {argument: value}}`` beside its other settings. Where a config file before it
    names one of the classes, its arguments become the ones given; they win over the file's other settings.

    Raises:
        UserError: ``by_class`` of another form, an unknown class, or no config file before it that names any.
    """
    words, place, named = list(arguments), 0, dict[str, str]()
    while place < len(words):
        word = words[place]
        inline = word.startswith("--config=")
        if not inline and (word not in ("--config", "-c") or place + 1 == len(words)):
            place += 1
            continue
        path = Path(word.partition("=")[2] if inline else words[place + 1])
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(settings, Mapping):
            if _KEY in settings:
                written = json.dumps(_written_out(path, settings, named))
                words[place : place + (1 if inline else 2)] = [f"--config={written}"]
                inline = True
            else:
                named |= dict(_classes(settings))
        place += 1 if inline else 2
    return words


def _classes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places of a config file where a class may be named, and what stands there."""
    for top in settings:
        for key, value in registry.flat(settings[top], top).items():
            if isinstance(value, str):
                yield key, value.rpartition(".")[2]


def _written_out(path: Path, settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
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
            f"config file {path} has settings for {', '.join(by_class)}, and no config file before it names one of "
            f"them; type --config FILE --config {path}"
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
