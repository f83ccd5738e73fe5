"""Progress of a study on the screen: which jobs run, how many are done, about how long it will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from repro.studies.jobs import Job, remaining

__all__ = ["StudyProgress"]


class StudyProgress:
    """A bar over the jobs of a study.

    Args:
        jobs: All jobs.
        folder: The study's folder.
        workers: How many run at a time, for the time that is left.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, workers: int) -> None:
        self._jobs, self._folder, self._workers = jobs, folder, max(workers, 1)
        self._spent, self._planned = 0.0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"))
        self._task = self._bar.add_task("jobs", total=len(jobs), left="")

    def __enter__(self) -> StudyProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def show(self, running: Sequence[str]) -> None:
        """Shows what runs, and the time left at the pace of the jobs that have ended."""
        pace = self._spent / self._planned if self._planned else 1.0
        waiting = remaining(self._jobs, self._folder)
        left = pace * sum(job.size.seconds for job in waiting) / self._workers
        done = len(self._jobs) - len(waiting)
        text = f"about {left / 60:.0f} min left"
        self._bar.update(self._task, description=", ".join(running), completed=done, left=text)

    def ended(self, job: Job, seconds: float) -> None:
        """Takes note of how long a job took."""
        self._spent, self._planned = self._spent + seconds, self._planned + job.size.seconds
