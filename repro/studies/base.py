"""The contract of studies: jobs in, one table and one figure out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from repro.registry import Plugin
from repro.studies.jobs import Executor, Job

__all__ = ["Scale", "Study"]

Scale = Literal["tiny", "cpu", "small", "paper"]


class Study(Plugin, ABC):
    """Base of the studies; one of them defines :meth:`jobs` and :meth:`report`.

    Attributes:
        name: The study's registered name, as in ``repro study NAME``.
        figure: Which figure of the paper it redraws.
        scales: The scales that it has.
    """

    name: ClassVar[str]
    figure: ClassVar[str]
    scales: ClassVar[tuple[Scale, ...]] = ("tiny", "small", "paper")

    @abstractmethod
    def jobs(self, folder: Path, scale: Scale) -> list[Job]:
        """Everything to be done, in an order in which no job comes before one that it needs."""

    @abstractmethod
    def report(self, folder: Path, scale: Scale) -> str:
        """Table and figure from the jobs' outputs, written to the folder; returns the text to print."""

    def run(self, folder: Path, scale: Scale, executor: Executor) -> str:
        """Does what is missing, then reports.

        Raises:
            UserError: a job failed.
        """
        executor.run(self.jobs(folder, scale), folder)
        return self.report(folder, scale)
