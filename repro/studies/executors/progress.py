"""Progress of a study on the screen: which jobs run, how many are done, about how long it will take."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from repro.data.progress import LINE_SECONDS
from repro.files import say
from repro.studies.jobs import Job, remaining

__all__ = ["StudyProgress"]


class StudyProgress:
    """A bar over the jobs of a study; where stdout is no terminal, a line at an interval.

    Args:
        jobs: All jobs.
        folder: The study's folder.
        workers: How many run at a time, for the time that is left.
        seconds: Between two lines.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, workers: int, seconds: float = LINE_SECONDS) -> None:
        self._jobs, self._folder, self._workers = jobs, folder, max(workers, 1)
        self._spent, self._planned = 0.0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._lines = not Console().is_terminal
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), disable=self._lines)
        self._task = self._bar.add_task("jobs", total=len(jobs), left="")
        self._seconds, self._running, self._over = seconds, list[str](), threading.Event()
        self._clock = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> StudyProgress:
        self._bar.start()
        if self._lines:
            self._clock.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()
        self._over.set()
        if self._lines:
            self._clock.join()

    def _tell(self) -> None:
        """Prints a line at the interval until all is over; jobs may run long without a word."""
        while not self._over.wait(self._seconds):
            done, left = self._so_far()
            running = f", running {', '.join(self._running)}" if self._running else ""
            share = 100 * done / max(len(self._jobs), 1)
            say(f"jobs: {done} of {len(self._jobs)} ({share:.0f} %){running}, {left}")

    def show(self, running: Sequence[str]) -> None:
        """Shows what runs, and the time left at the pace of the jobs that have ended."""
        self._running = list(running)
        if not self._lines:
            done, left = self._so_far()
            self._bar.update(self._task, description=", ".join(running), completed=done, left=left)

    def _so_far(self) -> tuple[int, str]:
        """How many jobs are done, and about how long the others take."""
        pace = self._spent / self._planned if self._planned else 1.0
        waiting = remaining(self._jobs, self._folder)
        left = pace * sum(job.size.seconds for job in waiting) / self._workers
        return len(self._jobs) - len(waiting), f"about {left / 60:.0f} min left"

    def ended(self, job: Job, seconds: float) -> None:
        """Takes note of how long a job took."""
        self._spent, self._planned = self._spent + seconds, self._planned + job.size.seconds
