"""The contract of executors: run the jobs that are not done, each after those that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from repro.errors import UserError
from repro.registry import Plugin
from repro.studies.jobs import Job, is_done

__all__ = ["Command", "Executor", "Ready"]

Command = Callable[[list[str]], int]
"""Runs the words after ``repro`` and returns the exit code."""


class Executor(Plugin, ABC):
    """Base of what runs jobs: this machine's cores, or a cluster.

    All state is in the study's folder and in the cluster's own queue, so a run that was stopped is taken up by the same
    command, from whichever machine sees the folder.

    Args:
        retries: How often a job that failed is tried again.

    Raises:
        UserError: a negative number of retries.
    """

    def __init__(self, retries: int = 1) -> None:
        if retries < 0:
            raise UserError(f"retries is {retries}; give 0 or more")
        self.retries = retries

    @abstractmethod
    def run(self, jobs: Sequence[Job], folder: Path, command: Command) -> None:
        """Runs what is missing; a job that fails holds up only those that need it.

        Args:
            jobs: All jobs of the study, in a legal order.
            folder: The study's folder.
            command: Runs a job's command in a process of this machine.

        Raises:
            UserError: a job failed, told with the last line of its log.
        """

    def running(self, folder: Path) -> Mapping[str, str]:
        """Returns what became of the jobs of a folder that were handed on and have not ended: name -> state."""
        return {}

    def cancel(self, folder: Path) -> list[str]:
        """Takes back the jobs that were handed on; returns their names.

        Raises:
            UserError: the jobs live no longer than the command that runs them.
        """
        raise UserError(f"jobs of {type(self).__name__} end with the command that runs them; press Ctrl-C there")


class Ready:
    """Hands out the jobs that need no other job any more, in the order of the plan.

    Args:
        jobs: All jobs, in a legal order.
        folder: The study's folder, which says what is done.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self._named, self._folder = {job.name: job for job in jobs}, folder
        self._places = {name: index for index, name in enumerate(self._named)}
        self._order = TopologicalSorter({job.name: job.after for job in jobs})
        self._order.prepare()
        self._waiting: list[Job] = []

    def put_back(self, job: Job) -> None:
        """Lets a job be taken once more."""
        self._waiting.append(job)

    def end(self, job: Job) -> None:
        """Notes that a job has ended, so that jobs that need it may run where it is done."""
        if is_done(job, self._folder):
            self._order.done(job.name)

    def take(self) -> Job | None:
        """Takes the next job to run; None while every other one waits for a job that runs or failed."""
        while names := self._order.get_ready():
            for job in (self._named[name] for name in names):
                if is_done(job, self._folder):
                    self._order.done(job.name)
                else:
                    self._waiting.append(job)
        self._waiting.sort(key=lambda job: self._places[job.name])
        return self._waiting.pop(0) if self._waiting else None
