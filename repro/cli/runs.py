"""Run folders: chosen once, never shared, found again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.cli.configs import config_path
from repro.errors import UserError
from repro.files import sweep_parts
from repro.records import flat

__all__ = [
    "METRICS",
    "RUNS",
    "claim",
    "finished",
    "is_held",
    "keep_metrics",
    "name_of",
    "run_folder",
    "run_of_checkpoint",
    "runs_named",
    "status_of",
]

RUNS = Path("runs")
METRICS = "metrics.csv"
_VARIABLE = "REPRO_RUN_FOLDER"
_LOCK = ".lock"
_FILES = ("pipeline", "model")  # arguments that may name a file of another model
_LEFTOVER = re.compile(r"\.lock|config\.yaml|hparams\.yaml|events\.out\..*|metrics.*\.csv|\..*\.part")


@contextlib.contextmanager
def run_folder(
    start: Path | None, name: str, output: str | None, unused: Callable[[], bool] = lambda: True
) -> Iterator[Path]:
    """Gives the folder to train in: that of the checkpoint gone on from, or a new one; removed if it stays unused.

    The process that the user started chooses it and tells those that it launches, through the environment. While it
    is held, no other process trains in it.

    Args:
        start: The checkpoint to go on from, or None.
        name: A new run gets ``runs/<name>``, or ``<name>-2``, ``-3``, ... when there is one already.
        output: This folder instead; new, empty, or left by a run that never reached a checkpoint.
        unused: Whether nothing was done in the folder, asked after a failure: a new one is then removed again.

    Raises:
        UserError: the folder is in use or cannot be made.
    """
    rank = next((os.environ[key] for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ), "0")
    if rank != "0":
        yield Path(os.environ.get(_VARIABLE, RUNS / name))
        return
    folder = run_of_checkpoint(start) if start is not None else None
    created = folder is None and not (output and Path(output).exists())
    folder = folder or claim(name, output)
    os.environ[_VARIABLE] = str(folder)
    try:
        with _held(folder):
            yield folder
    except BaseException:
        if created and unused():
            _remove_if_empty(folder)
        raise
    finally:
        os.environ.pop(_VARIABLE, None)


def _remove_if_empty(folder: Path) -> None:
    """Removes a run's folder that holds nothing but what a start leaves behind: a lock, settings, empty logs."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if all(_LEFTOVER.fullmatch(path.name) for path in files):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            RUNS.rmdir()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder, until this one leaves it or dies."""
    try:
        file = open(folder / _LOCK, "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; nothing was changed there") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} is being trained in by another process; wait for it or stop it") from error
        except (ImportError, OSError):
            pass
        yield


def claim(name: str, output: str | None) -> Path:
    """Makes a new folder in ``runs/``, or the given one; see :func:`run_folder`."""
    folder = Path(output) if output else None
    try:
        if folder is None:
            return next(path for path in _numbered(RUNS / name) if _make(path))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoints").is_dir():  # a run's, whose parts a killed process left
            for inner in (folder, folder / "checkpoints"):
                sweep_parts(inner)
        files = [path for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        wanted = folder or RUNS / name
        raise UserError(f"cannot make the run folder {wanted}: {error.strerror}; name another: --output DIR") from error
    if not all(_LEFTOVER.fullmatch(path.name) for path in files):
        raise UserError(f"--output {folder} is not empty; name a new folder, or resume its run: --ckpt_path {folder}")
    with _held(folder):
        for path in files:
            path.unlink(missing_ok=True)
    return folder


def _numbered(first: Path) -> Iterator[Path]:
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.name}-{number}")
        number += 1


def _make(path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        return True
    return False


def name_of(wanted: str | None, configs: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Names a run: as wanted, or after its first config (of a saved one its run), or after model and data.

    Args:
        wanted: The name that was typed, if any.
        configs: Configs that were typed, by name or path, or as JSON.
        settings: All settings, as plain data.

    Raises:
        UserError: the name is a path.
    """
    if wanted:
        if wanted != Path(wanted).name:
            raise UserError(f"--name {wanted} is a path; type --output {wanted}")
        return wanted
    if files := [config_path(each) for each in configs if not each.startswith("{")]:
        saved = files[0].name == "config.yaml" and (files[0].parent / "run.json").exists()
        return files[0].absolute().parent.name if saved else files[0].stem
    named = {
        key: str(value).rpartition(".")[2]
        for top in ("model", "data")
        for key, value in flat(settings[top], top).items()
    }
    parts = [named[key] for key in ("model.network", "model.denoiser") if named.get(key, "None") != "None"]
    arguments = settings["model"].get("init_args") or {}
    read = [Path(arguments[key]).name for key in _FILES if isinstance(arguments.get(key), str)]
    parts = parts or [named["model"], *read]
    return "-".join([*parts, *([named["data"]] if named.get("data", "None") != "None" else [])])


def run_of_checkpoint(path: str | os.PathLike[str]) -> Path | None:
    """The run folder that a checkpoint lies in, or that the path is; None for a checkpoint that lies elsewhere."""
    path = Path(path)
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else None


def is_held(folder: Path) -> bool:
    """Says whether another process trains in a run folder."""
    try:
        with _held(folder):
            return False
    except UserError:
        return os.access(folder, os.W_OK)


def keep_metrics(folder: Path) -> None:
    """Renames an earlier ``metrics.csv``, which ``CSVLogger`` would delete, to ``metrics-1.csv``, ``-2``, ..."""
    if (folder / METRICS).exists():
        numbered = (folder / f"metrics-{number}.csv" for number in itertools.count(1))
        (folder / METRICS).rename(next(file for file in numbered if not file.exists()))


def status_of(folder: Path) -> dict[str, Any]:
    """Reads a run's ``run.json``; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        status = json.loads((folder / "run.json").read_text())
        return status if isinstance(status, dict) else {}
    return {}


def runs_named(name: str | None = None, started: bool = False) -> list[Path]:
    """Runs with a checkpoint, newest first: those in ``runs/`` and in the folders of studies there.

    Args:
        name: Only those called ``<name>``, ``<name>-2``, ... in ``runs/`` itself.
        started: Also those that have their settings and no checkpoint yet.
    """
    mark = "config.yaml" if started else "run.json"

    def fits(folder: Path) -> bool:
        stem, _, number = folder.name.rpartition("-")
        return name is None or folder.name == name or (stem == name and number.isdecimal())

    places = [f"*/{mark}"] if name else [f"*/{mark}", f"*/runs/*/{mark}"]
    folders = [path.parent for pattern in places for path in RUNS.glob(pattern) if fits(path.parent)]
    return sorted(folders, key=lambda folder: (folder / mark).stat().st_mtime, reverse=True)


def finished(fits: Callable[[Path, Mapping[str, Any]], bool]) -> Iterator[Path]:
    """Returns the finished runs below ``runs/`` that fit, newest first.

    Args:
        fits: Given the run's folder and what its ``run.json`` says.
    """
    for folder in runs_named():
        status = status_of(folder)
        if status.get("finished") and fits(folder, status):
            yield folder
