"""The contract of executors: run the jobs that are not done, each after those that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from repro.studies.jobs import Job

__all__ = ["Executor"]


class Executor(Protocol):
    """Whatever runs jobs: this machine's cores, or a cluster."""

    def run(self, jobs: Sequence[Job], folder: Path) -> None:
        """Runs the jobs that are not done, each after those that it needs.

        Raises:
            UserError: a job failed; the message names its log.
        """
