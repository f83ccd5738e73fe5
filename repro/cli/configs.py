"""Config files before they are parsed: found, readable, YAML, and of the form class_path + init_args."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from repro.cli.named_configs import config_path
from repro.cli.overlays import starts_from
from repro.errors import UserError

__all__ = ["check_config_files", "config_files", "gathered"]

_SPEC = {"class_path", "init_args", "dict_kwargs"}


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The config files that a command line names by name or path, in order.

    Raises:
        UserError: nothing is there; see :func:`repro.cli.named_configs.config_path`.

    Example:
        >>> [path.name for path in config_files(["--config", "edm_cifar", "--config=small/digits", "--data", "Digits"])]
        ['edm_cifar.yaml', 'digits.yaml']
    """
    given = [
        following if word in ("--config", "-c") else word.partition("=")[2]
        for word, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if word in ("--config", "-c") or word.startswith("--config=")
    ]
    return [config_path(each) for each in given if each and not each.lstrip().startswith("{")]


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
        settings = _settings(path)
        for start in starts_from(path, settings):
            _settings(config_path(start))


def _settings(path: Path) -> dict[str, Any]:
    settings = _read(path)
    if not isinstance(settings, dict):
        held = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise UserError(f"config file {path} holds {held}; it must hold settings, key: value")
    _check_nesting(path, settings, "")
    return settings


def _read(path: Path) -> Any:
    if path.is_dir():
        names = sorted(file.name for file in path.glob("*.y*ml"))
        inside = f"; there are {', '.join(names[:8])} in it" if names else ""
        raise UserError(f"config file {path} is a folder, not a config file{inside}")
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
