"""Studies as jobs: independent named command lines with inputs and outputs, run in order or side by side.

All state lives in the study's folder: ``jobs/NAME.done`` says that a job is finished, ``jobs/NAME.log`` what it
printed. Running a study again does only what is missing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from repro.errors import UserError
from repro.files import write_text

__all__ = ["Executor", "Job", "LocalExecutor", "is_done", "longest_first", "remaining"]


@dataclass(frozen=True)
class Job:
    """One command line of a study.

    Attributes:
        name: Unique within the study; also the name of its log.
        command: Words after ``repro``.
        after: Names of the jobs whose outputs it reads.
        seconds: Estimated time on one core, for plans and progress.
        checkpoint: When this file is there, the job was interrupted and goes on from it (``--ckpt_path``).
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    seconds: float = 60.0
    checkpoint: Path | None = None

    def words(self) -> list[str]:
        """The command line, with the checkpoint of an interrupted attempt."""
        resume = ["--ckpt_path", str(self.checkpoint)] if self.checkpoint and self.checkpoint.is_file() else []
        return [*self.command, *resume]


class Executor(Protocol):
    """Whatever runs jobs: this machine's cores, or a cluster."""

    def run(self, jobs: Sequence[Job], folder: Path) -> None:
        """Runs the jobs that are not done, each after those that it needs.

        Raises:
            UserError: a job failed; the message names its log.
        """


def is_done(job: Job, folder: Path) -> bool:
    """Whether a job of a study's folder is finished."""
    return (folder / "jobs" / f"{job.name}.done").is_file()


def remaining(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """The jobs that are not finished yet, in order."""
    return [job for job in jobs if not is_done(job, folder)]


def longest_first(jobs: Mapping[str, Job]) -> list[Job]:
    """Jobs by name, each after those that it needs, in a legal order that begins with the longest chains."""
    remains = {name: job.seconds for name, job in jobs.items()}
    for name, job in reversed(jobs.items()):
        for before in job.after:
            remains[before] = max(remains[before], jobs[before].seconds + remains[name])
    return sorted(jobs.values(), key=lambda job: -remains[job.name])


def _leave_with(parent: int) -> None:
    """Makes a worker end when the process that runs the study has ended, however that came about."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(command: Callable[[list[str]], int], words: list[str], log: str) -> int:
    with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print("$ repro", *words, flush=True)
        try:
            return command(words)
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else 1


class LocalExecutor:
    """Runs jobs on this machine, one a core, each with one thread.

    Args:
        command: Runs the words after ``repro`` and returns the exit code; called in other processes.
        workers: Jobs at a time; by default as many as there are cores, or one when there is a GPU.
    """

    def __init__(self, command: Callable[[list[str]], int], workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"workers is {workers}; give at least 1")
        self.command, self.workers = command, workers

    def _count(self) -> int:
        if self.workers:
            return self.workers
        import torch

        return 1 if torch.cuda.is_available() else max(1, len(os.sched_getaffinity(0)))

    def run(self, jobs: Sequence[Job], folder: Path) -> None:
        """Runs what is missing; see :class:`Executor`."""
        logs = folder / "jobs"
        logs.mkdir(parents=True, exist_ok=True)
        waiting, running = remaining(jobs, folder), dict[Future[int], tuple[Job, float]]()
        finished = {job.name for job in jobs} - {job.name for job in waiting}
        workers = self._count()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with (
            _threads(1 if workers > 1 else 0),
            ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_with, (os.getpid(),)) as pool,
            Progress(*columns) as bar,
        ):
            task = bar.add_task("jobs", total=len(jobs), completed=len(finished), left="")
            spent, planned = 0.0, 0.0
            while waiting or running:
                ready = [job for job in waiting if finished.issuperset(job.after)]
                for job in ready[: workers - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(_work, self.command, job.words(), str(logs / f"{job.name}.log"))] = (
                        job,
                        time.monotonic(),
                    )
                names = ", ".join(job.name for job, _ in running.values())
                pace = spent / planned if planned else 1.0
                left = pace * sum(job.seconds for job in [*waiting, *(job for job, _ in running.values())]) / workers
                bar.update(task, description=names, left=f"about {left / 60:.0f} min left")
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, since = running.pop(future)
                    self._check(future, job, logs / f"{job.name}.log")
                    spent, planned = spent + time.monotonic() - since, planned + job.seconds
                    write_text(logs / f"{job.name}.done", f"{time.monotonic() - since:.1f} s\n")
                    finished.add(job.name)
                    bar.advance(task)

    def _check(self, future: Future[int], job: Job, log: Path) -> None:
        try:
            code = future.result()
        except BrokenProcessPool as error:
            raise UserError(f"job {job.name} was killed; run the same command again to go on (log: {log})") from error
        if code:
            last = (log.read_text().strip().splitlines() or ["no output"])[-1]
            raise UserError(f"job {job.name} failed: {last} (log: {log}); run the same command again to go on")


@contextlib.contextmanager
def _threads(count: int):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if count:
        os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
