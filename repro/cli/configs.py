"""Config files before they are parsed: found, readable, YAML, and of the form class_path + init_args."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from repro.errors import UserError, nearest

__all__ = ["check_config_files", "config_files", "gathered"]

_SPEC = {"class_path", "init_args", "dict_kwargs"}


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The config files that a command line names, in order.

    Example:
        >>> [str(path) for path in config_files(["--config", "a.yaml", "--config=b.yaml", "--data", "Digits"])]
        ['a.yaml', 'b.yaml']
    """
    given = [
        following if word in ("--config", "-c") else word.partition("=")[2]
        for word, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if word in ("--config", "-c") or word.startswith("--config=")
    ]
    return [Path(path) for path in given if path and not path.lstrip().startswith("{")]


def gathered(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line with every value of an option that takes several in one list, repeated or not.

    Example:
        >>> gathered(["--metric", "A", "B", "--seeds", "0-9", "--metric=C"], ["--metric"])
        ['--seeds', '0-9', '--metric=["A", "B", "C"]']
    """
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    taking: list[str] | None = None
    for word in arguments:
        name, equals, value = word.partition("=")
        if name in options:
            taking = values.setdefault(name, [])
            taking += [value] if equals else []
        elif word.startswith("--") or taking is None:
            taking = None
            rest.append(word)
        else:
            taking.append(word)
    return rest + [f"{name}={json.dumps(given)}" for name, given in values.items()]


def check_config_files(arguments: Sequence[str]) -> None:
    """Raises UserError for the first config file that is missing, unreadable, no YAML or badly nested."""
    for path in config_files(arguments):
        settings = _read(path)
        if not isinstance(settings, dict):
            held = "nothing" if settings is None else f"a {type(settings).__name__}"
            raise UserError(f"config file {path} holds {held}; it must hold settings, key: value")
        _check_nesting(path, settings, "")


def _read(path: Path) -> Any:
    if not path.is_file():
        folder = path.parent
        kind = "is a folder, not a config file" if path.is_dir() else "does not exist"
        names = sorted(file.name for file in folder.glob("*.y*ml")) if folder.is_dir() else []
        near = nearest(path.name, names)
        others = f"; there are {', '.join(names[:8])}" if names else ""
        raise UserError(f"config file {path} {kind}{f'; did you mean {folder / near}?' if near else others}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"config file {path} is not valid YAML{where}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is not a YAML text file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read config file {path}: {os.strerror(error.errno or 0)}") from error


def _check_nesting(path: Path, settings: Any, key: str) -> None:
    if isinstance(settings, list):
        for index, item in enumerate(settings):
            _check_nesting(path, item, f"{key}[{index}]")
    elif isinstance(settings, dict):
        beside = [str(name) for name in settings if name not in _SPEC]
        if "class_path" in settings and beside:
            raise UserError(
                f"config file {path}: {key} has {beside[0]!r} beside class_path; write its arguments under init_args"
            )
        for name, value in settings.items():
            _check_nesting(path, value, key if name == "init_args" else f"{key}.{name}".lstrip("."))
