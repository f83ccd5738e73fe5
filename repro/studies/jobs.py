"""Jobs of a study: each is a command and its settings, kept as a YAML file that can be read and run by hand.

All state lives in the study's folder: ``jobs/NAME.yaml`` holds the settings, ``jobs/NAME.log`` what the job printed,
``jobs/NAME.done`` says that it is finished. Running a study again does only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from repro.errors import UserError
from repro.files import make_folder, write_text
from repro.records import differences, merged

__all__ = [
    "Job",
    "Size",
    "check_settings",
    "file_of",
    "in_order",
    "is_done",
    "remaining",
    "state_of",
    "with_settings",
]


@dataclass(frozen=True)
class Size:
    """What a job is expected to need.

    Attributes:
        seconds: Time on one core, or on the GPUs where there are any.
        gpus: Number of GPUs.
        memory: Main memory in GB.
        flops: Floating-point operations, where the settings do not name the network, as of a released file; else None.
    """

    seconds: float = 60.0
    gpus: int = 0
    memory: float = 4.0
    flops: float | None = None


@dataclass(frozen=True)
class Job:
    """One command of a study.

    Attributes:
        name: Unique within the study; also the name of its settings and its log.
        command: Word after ``repro``.
        settings: What the command's ``--config`` holds; ``output`` is where the job writes.
        after: Names of the jobs whose outputs it reads.
        size: What it is expected to need.
        checkpoint: When this file is there, the job was interrupted and goes on from it (``--ckpt_path``).
    """

    name: str
    command: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    size: Size = field(default_factory=Size)
    checkpoint: Path | None = None

    def words(self, folder: Path) -> list[str]:
        """Writes the settings to the study's folder and makes the command line that reads them."""
        path = file_of(folder, self, "yaml")
        text = yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True, width=120)
        make_folder(path.parent)
        write_text(path, f"# repro {self.command} --config {path}   (in {Path.cwd()})\n{text}")
        resume = ["--ckpt_path", str(self.checkpoint)] if self.checkpoint and self.checkpoint.is_file() else []
        return [self.command, "--config", str(path), *resume]


def file_of(folder: Path, job: Job, kind: str) -> Path:
    """Returns the file of a job in a study's folder: its ``yaml``, ``log``, ``done``, ``failed`` or ``lock``."""
    return folder / "jobs" / f"{job.name}.{kind}"


def is_done(job: Job, folder: Path) -> bool:
    """Says whether a job of a study's folder is finished."""
    return file_of(folder, job, "done").is_file()


def state_of(job: Job, folder: Path) -> str:
    """Returns the state of a job: ``done``, ``failed`` (it can be tried again) or empty."""
    return next((kind for kind in ("done", "failed") if file_of(folder, job, kind).is_file()), "")


def remaining(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Returns the jobs that are not finished yet, in order."""
    return [job for job in jobs if not is_done(job, folder)]


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Sorts jobs so that each comes after those that it needs, the longest chains first.

    Raises:
        graphlib.CycleError: jobs wait for each other.
    """
    named = {job.name: job for job in jobs}
    legal = list(TopologicalSorter({job.name: job.after for job in jobs}).static_order())
    left = {name: named[name].size.seconds for name in legal}
    for name in reversed(legal):
        for before in named[name].after:
            left[before] = max(left[before], named[before].size.seconds + left[name])
    return sorted((named[name] for name in legal), key=lambda job: -left[job.name])


def check_settings(jobs: Sequence[Job], folder: Path) -> None:
    """Refuses to go on with a folder in which a job was run under other settings.

    Jobs of which only ``NAME.done`` is there, as older versions left them, are taken as they are. The folder may have
    been moved.

    Raises:
        UserError: naming the job and what differs.
    """
    for job in jobs:
        path = file_of(folder, job, "yaml")
        if not path.is_file():
            continue
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        root = str(before["output"]).removesuffix(str(job.settings["output"]).removeprefix(str(folder)))
        apart = differences(_moved(before, root, str(folder)), _moved(job.settings, "", ""), "job")
        if apart:
            key, (old, new) = next(iter(apart.items()))
            raise UserError(
                f"job {job.name} was run in {folder} with {key.removeprefix('job.')} {old}, now it is {new}; name "
                "another folder: --output DIR"
            )


def _moved(settings: Any, old: str, new: str) -> Any:
    """Settings as plain data, with paths in one folder turned into paths in another."""
    if isinstance(settings, Mapping):
        return {key: _moved(value, old, new) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_moved(value, old, new) for value in settings]
    if old and isinstance(settings, str) and (settings == old or settings.startswith(f"{old}/")):
        return new + settings.removeprefix(old)
    return settings


def with_settings(job: Job, more: Mapping[str, Any]) -> Job:
    """Returns a job under further settings, which win over its own."""
    return replace(job, settings=merged(job.settings, more))
