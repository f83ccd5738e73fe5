"""Lightning's loggers by their name alone: they write into the run's folder unless they are told another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from repro.cli.classes import class_of, specs
from repro.cli.schema import options_of

__all__ = ["leave_folder_open", "put_into_folder"]

_USUAL = "lightning_logs"


def _loggers(trainer: Any) -> Iterator[Any]:
    """The loggers among the trainer's settings that write into a folder."""
    for where, spec in specs(trainer.get("logger"), "logger"):
        if where.count(".") == 0 and "save_dir" in options_of(class_of(spec["class_path"])):
            spec["init_args"] = spec.get("init_args") or Namespace()
            yield spec


def leave_folder_open(trainer: Any) -> None:
    """Lets loggers without a folder pass the parser's check; :func:`put_into_folder` gives them theirs."""
    for spec in _loggers(trainer):
        if spec["init_args"].get("save_dir") in (None, "."):
            spec["init_args"]["save_dir"] = ""


def put_into_folder(trainer: Any, folder: Path) -> None:
    """Gives loggers without a folder the run's own, where their files lie side by side with the run's."""
    for spec in _loggers(trainer):
        arguments, options = spec["init_args"], options_of(class_of(spec["class_path"]))
        if arguments["save_dir"] != "":
            continue
        arguments["save_dir"] = str(folder)
        if "name" in options and arguments.get("name", _USUAL) == _USUAL:
            arguments["name"], arguments["version"] = "", ""
