"""Studies with jobs that measure: each such job is the study's own command with ``--part``."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import unknown
from repro.files import write_text
from repro.studies.base import Scale, Study
from repro.studies.jobs import Executor, Job

__all__ = ["MeasuringStudy", "log_figure"]

_PREFIX = "measure_"


class MeasuringStudy(Study):
    """Base of the studies that measure more than images: one of them also defines :meth:`measure`.

    A measurement is a job like any other, run as ``repro study NAME --part PART``; what it finds is plain data in
    ``measured/PART.json`` of the study's folder.

    Args:
        part: Do only this measurement, on the runs and banks that are in the folder.
    """

    def __init__(self, part: str | None = None) -> None:
        self.part = part

    @abstractmethod
    def measure(self, folder: Path, scale: Scale, part: str) -> Mapping[str, Any]:
        """One measurement, as plain JSON data."""

    def measure_job(self, folder: Path, scale: Scale, part: str, after: Sequence[str], seconds: float) -> Job:
        """The job ``measure_PART``.

        Args:
            folder: The study's folder.
            scale: Its scale.
            part: Name of the measurement.
            after: Names of the jobs whose outputs it reads.
            seconds: Estimated time on one core.
        """
        words = ("study", self.name, "--scale", scale, "--output", str(folder), "--part", part)
        return Job(f"{_PREFIX}{part}", words, after=tuple(after), seconds=seconds)

    def measured(self, folder: Path, part: str) -> dict[str, Any]:
        """What a measurement found."""
        return json.loads(self._path(folder, part).read_text())

    def _path(self, folder: Path, part: str) -> Path:
        return folder / "measured" / f"{part}.json"

    def run(self, folder: Path, scale: Scale, executor: Executor) -> str:
        """Does what is missing, then reports; or does one measurement.

        Raises:
            UserError: a job failed, or there is no such measurement.
        """
        if self.part is None:
            return super().run(folder, scale, executor)
        names = [job.name for job in self.jobs(folder, scale)]
        parts = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
        if self.part not in parts:
            raise unknown(f"part of {self.name}", self.part, parts)
        path, found = self._path(folder, self.part), self.measure(folder, scale, self.part)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found, indent=1) + "\n")
        return f"measured: {path}"


def log_figure(folder: Path, name: str, picture: np.ndarray, values: Mapping[str, float]) -> None:
    """A TensorBoard entry of a study: its figure and its numbers.

    Args:
        folder: The log's folder.
        name: Of the study.
        picture: uint8 (H, W, 3).
        values: Numbers by name.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as log:
        log.add_image(name, picture, dataformats="HWC")
        for key, value in values.items():
            log.add_scalar(f"{name}/{key}", value)
