"""Jobs on this machine: side by side on its cores, or one a GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from repro.errors import UserError
from repro.studies.jobs import Job, is_done, remaining
from repro.studies.work import check_finished, fail, run_job

__all__ = ["LocalExecutor"]


class LocalExecutor:
    """Runs jobs on this machine, one a core with one thread each, or one a GPU.

    Args:
        command: Runs the words after ``repro`` and returns the exit code; called in other processes.
        workers: Jobs at a time; by default as many as there are GPUs, or cores where there is none.
    """

    def __init__(self, command: Callable[[list[str]], int], workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"workers is {workers}; give at least 1")
        self.command, self.workers = command, workers

    def run(self, jobs: Sequence[Job], folder: Path) -> None:
        """Runs what is missing; a job that fails holds up only those that need it.

        Raises:
            UserError: a job failed, told with the last line of its log.
        """
        order, ready = TopologicalSorter({job.name: job.after for job in jobs}), list[Job]()
        order.prepare()
        gpus = _gpus()
        count = self.workers or len(gpus) or max(1, len(os.sched_getaffinity(0)))
        with _threads(1 if count > 1 else 0), _slots(count, gpus) as slots, _Bar(jobs, folder, count) as bar:
            while True:
                ready = sorted([*ready, *_next(order, jobs, folder)], key=jobs.index)
                for slot in slots:
                    if ready and slot.job is None:
                        slot.start(ready.pop(0), folder, self.command)
                busy = {slot.future: slot for slot in slots if slot.job is not None}
                if not busy:
                    break
                bar.show([slot.job for slot in busy.values()])
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    job, seconds = busy[future].end(folder)
                    if is_done(job, folder):
                        order.done(job.name)
                        bar.advance(job, seconds)
        check_finished(jobs, folder)


def _next(order: TopologicalSorter, jobs: Sequence[Job], folder: Path) -> Iterator[Job]:
    """The jobs that nothing holds up any more; those that are done already are passed over."""
    named = {job.name: job for job in jobs}
    while names := order.get_ready():
        for name in names:
            if is_done(named[name], folder):
                order.done(name)
            else:
                yield named[name]


class _Slot:
    """A worker process that runs one job after the other: importing torch takes seconds, so it is done once."""

    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.job: Job | None = None
        self.future: Future[bool] | None = None
        self._since = 0.0
        self._pool: ProcessPoolExecutor | None = None

    def start(self, job: Job, folder: Path, command: Callable[[list[str]], int]) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _prepare, (os.getpid(), self.gpu))
        self.job, self._since = job, time.monotonic()
        self.future = self._pool.submit(run_job, job, folder, command)

    def end(self, folder: Path) -> tuple[Job, float]:
        """Takes the job back, with the seconds that it took; a process that was killed is replaced."""
        job, self.job = self.job, None
        try:
            self.future.result()
        except BrokenProcessPool:
            fail(job, folder, "it was killed")
            self.close()
        return job, time.monotonic() - self._since

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextlib.contextmanager
def _slots(count: int, gpus: Sequence[str]) -> Iterator[list[_Slot]]:
    slots = [_Slot(gpus[number % len(gpus)] if gpus else None) for number in range(count)]
    try:
        yield slots
    finally:
        for slot in slots:
            slot.close()


def _prepare(parent: int, gpu: str | None) -> None:
    """Shows a worker its GPU only, and ends it when the process that runs the study has ended, however that came."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each for each in visible.split(",") if each.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class _Bar:
    """Progress of a study: which jobs run, how many are done, about how long it will take."""

    def __init__(self, jobs: Sequence[Job], folder: Path, workers: int) -> None:
        left = sum(job.size.seconds for job in remaining(jobs, folder))
        self._left, self._workers, self._spent, self._planned = left, workers, 0.0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"))
        done = len(jobs) - len(remaining(jobs, folder))
        self._task = self._bar.add_task("jobs", total=len(jobs), completed=done, left="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def show(self, running: Sequence[Job]) -> None:
        pace = self._spent / self._planned if self._planned else 1.0
        left = f"about {pace * self._left / self._workers / 60:.0f} min left"
        self._bar.update(self._task, description=", ".join(job.name for job in running), left=left)

    def advance(self, job: Job, seconds: float) -> None:
        self._left -= job.size.seconds
        self._spent, self._planned = self._spent + seconds, self._planned + job.size.seconds
        self._bar.advance(self._task)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if count:
        os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
