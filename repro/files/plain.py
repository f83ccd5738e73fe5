"""Plain data out of files that anybody may have written: YAML and JSON, bounded in size, depth and repetition."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from repro.errors import UserError

__all__ = ["parse_json", "parse_yaml", "read_json", "read_settings", "read_yaml"]

_MOST_BYTES = 4 << 20
_MOST_VALUES = 200_000
_MOST_DEPTH = 60


def parse_yaml(text: str, what: str) -> Any:
    """Parses YAML into dicts, lists and plain values.

    Args:
        text: The text.
        what: What it is, as the subject of an error message.

    Raises:
        UserError: no valid YAML, nested more than 60 deep, or more than 200,000 values once its aliases are written
            out; a structure that holds itself has no end.

    Example:
        >>> parse_yaml("a: [1, null]", "config")
        {'a': [1, None]}
    """
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_DEPTH:
                raise _too_deep(what)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _size(node, {}, what) > _MOST_VALUES:
            raise UserError(f"{what} has more than {_MOST_VALUES:,} values, its aliases written out; write fewer")
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        tab = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{what} is not valid YAML{where}: {error.problem}{tab}") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{what} is not valid YAML: {error}") from error


def _size(node: Any, known: dict[int, int | None], what: str) -> int:
    """Values below a YAML node, counted once for each alias."""
    import yaml

    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise UserError(f"{what} has a value that holds itself; write it out")
        return size
    known[id(node)] = None
    parts: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    size = 1 + sum(_size(part, known, what) for part in parts)
    known[id(node)] = size
    return size


def _too_deep(what: str) -> UserError:
    return UserError(f"{what} is nested more than {_MOST_DEPTH} deep; write it flatter")


def parse_json(text: str | bytes, what: str) -> Any:
    """Parses JSON into dicts, lists and plain values.

    Args:
        text: The text; bytes are UTF-8.
        what: What it is, as the subject of an error message.

    Raises:
        UserError: no valid JSON, or nested more than 60 deep.

    Example:
        >>> parse_json('{"a": [1, null]}', "manifest")
        {'a': [1, None]}
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {' '.join(str(error).split())[:200]}") from error
    level = [content]
    for _ in range(_MOST_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return content
    raise _too_deep(what)


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """Reads a YAML file of at most 4 MiB; see :func:`parse_yaml`."""
    named = f"{what} {path}"
    return parse_yaml(_read(Path(path), named, _MOST_BYTES), named)


def read_json(path: str | os.PathLike[str], what: str = "", most_bytes: int = 64 << 20) -> Any:
    """Reads a JSON file of at most so many bytes; see :func:`parse_json`."""
    named = f"{what} {path}".strip()
    return parse_json(_read(Path(path), named, most_bytes), named)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the settings in a JSON file of at most a megabyte: an object.

    Raises:
        UserError: the file cannot be read, is damaged or larger, or holds something else.
    """
    content = read_json(path, "settings", 1 << 20)
    if not isinstance(content, dict):
        raise UserError(f"cannot read {path}: it holds no settings")
    return content


def _read(path: Path, named: str, most_bytes: int) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise UserError(f"{named} is larger than {most_bytes >> 20} MiB")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is no text file in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"cannot read {named}: {error.strerror or error}") from error
