"""The contract of studies: a plan of jobs, and a report of what came out of them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from repro.errors import UserError
from repro.records import as_config, record_of
from repro.registry import Plugin
from repro.studies.executors.base import Command, Executor
from repro.studies.jobs import Job, check_settings
from repro.studies.plan import Plan
from repro.studies.report import Report
from repro.studies.scales import SCALES, Scale

__all__ = ["Study"]


class Study(Plugin, ABC):
    """Base of the studies; one of them defines :meth:`plan` and :meth:`report`.

    Attributes:
        name: The study's registered name, as in ``repro study NAME``.
        figure: Which figure of the paper it redraws.
        scales: Names of the scales that it has.
        on_images: True: ``--images`` can replace the data of a scale.
    """

    name: ClassVar[str]
    figure: ClassVar[str]
    scales: ClassVar[tuple[str, ...]] = ("tiny", "small", "paper")
    on_images: ClassVar[bool] = False

    @abstractmethod
    def plan(self, plan: Plan) -> Any:
        """Adds everything to be done to a plan; returns the handles that the report needs."""

    @abstractmethod
    def report(self, report: Report, parts: Any) -> None:
        """Writes tables, picture and text from what the jobs left.

        Args:
            report: Where they go.
            parts: What :meth:`plan` returned.
        """

    def planned(
        self, folder: Path, scale: str | Scale = "tiny", over: Mapping[str, Any] | None = None
    ) -> tuple[Plan, Any]:
        """Makes the plan of this study in a folder, and the handles that its report needs.

        Args:
            folder: The study's folder.
            scale: One of :attr:`scales`, also by name.
            over: Settings that win over those of every training, nested as in a config.

        Raises:
            UserError: the study has no such scale, or learns no images that could be replaced.
        """
        named = scale if isinstance(scale, str) else scale.name
        if named not in self.scales:
            raise UserError(f"study {self.name} has no scale {named}; give --scale {' or '.join(self.scales)}")
        chosen = SCALES[scale] if isinstance(scale, str) else scale
        if chosen.images is not None and not self.on_images:
            raise UserError(f"study {self.name} always learns data of its own; leave --images out")
        plan = Plan(self.name, folder, chosen, _settings_of(self), over)
        return plan, self.plan(plan)

    def jobs(self, folder: Path, scale: str | Scale = "tiny") -> list[Job]:
        """Lists everything to be done, in an order in which no job comes before one that it needs."""
        return self.planned(folder, scale)[0].jobs()

    def reported(self, folder: Path, scale: str | Scale = "tiny") -> str:
        """Writes the report of a folder in which every job is done, and returns the text to print."""
        plan, parts = self.planned(folder, scale)
        report = Report(self.name, folder, plan.scale)
        self.report(report, parts)
        return str(report)

    def run(
        self,
        folder: Path,
        scale: str | Scale,
        executor: Executor,
        command: Command,
        over: Mapping[str, Any] | None = None,
    ) -> str:
        """Runs the jobs of a folder that are not done, then writes the report.

        Args:
            folder: The study's folder.
            scale: One of :attr:`scales`, also by name.
            executor: Runs the jobs.
            command: Runs the words after ``repro`` and returns the exit code.
            over: Settings that win over those of every training.

        Raises:
            UserError: a job failed, or the folder holds jobs that were done under other settings.
        """
        jobs = self.planned(folder, scale, over)[0].jobs()
        check_settings(jobs, folder)
        executor.run(jobs, folder, command)
        return self.reported(folder, scale)


def _settings_of(study: Study) -> dict[str, Any]:
    """The options that a study was built with, as a config has them."""
    options = record_of(study)["args"] if inspect.signature(type(study)).parameters else {}
    return {name: as_config(value) for name, value in options.items() if value is not None}
