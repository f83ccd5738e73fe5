"""Jobs on this machine: side by side on its cores, or one a GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from repro.errors import check_at_least
from repro.studies.executors.base import Command, Executor, Ready
from repro.studies.executors.progress import StudyProgress
from repro.studies.jobs import Job
from repro.studies.work import check_finished, fail, run_job

__all__ = ["Local"]


class Local(Executor):
    """Runs jobs on this machine, one a core with one thread each, or one a GPU.

    Args:
        workers: Jobs at a time; by default as many as there are GPUs, or cores where there is none. With more workers
            than GPUs several share one.
        retries: How often a job that failed is tried again.
    """

    def __init__(self, workers: int | None = None, retries: int = 1) -> None:
        super().__init__(retries)
        check_at_least(1, workers=workers)
        self.workers = workers

    def run(self, jobs: Sequence[Job], folder: Path, command: Command) -> None:
        """Runs what is missing; see :meth:`Executor.run`."""
        ready, killed, gpus = Ready(jobs, folder), Counter[str](), _gpus()
        count = self.workers or len(gpus) or max(1, len(os.sched_getaffinity(0)))
        with _threads(1 if count > 1 else 0), _slots(count, gpus) as slots, StudyProgress(jobs, folder, count) as bar:
            while True:
                for slot in slots:
                    if slot.job is None and (job := ready.take()) is not None:
                        slot.start(job, folder, command, self.retries)
                busy = {slot.future: slot for slot in slots if slot.future is not None}
                if not busy:
                    break
                bar.show([slot.job.name for slot in slots if slot.job is not None])
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    job, seconds, lives = busy[future].end(folder)
                    bar.ended(job, seconds)
                    ready.end(job)
                    killed[job.name] += not lives
                    if not lives and killed[job.name] <= self.retries:
                        ready.put_back(job)
        check_finished(jobs, folder)


class _Slot:
    """A worker process that runs one job after the other: importing torch takes seconds, so it is done once."""

    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.job: Job | None = None
        self.future: Future[bool] | None = None
        self._since = 0.0
        self._pool: ProcessPoolExecutor | None = None

    def start(self, job: Job, folder: Path, command: Command, retries: int) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _prepare, (os.getpid(), self.gpu))
        self.job, self._since = job, time.monotonic()
        self.future = self._pool.submit(run_job, job, folder, command, retries)

    def end(self, folder: Path) -> tuple[Job, float, bool]:
        """Takes the job back, with the seconds that it took and whether its process lives; a dead one is replaced."""
        job, future, self.job, self.future = self.job, self.future, None, None
        if job is None or future is None:
            raise ValueError("no job was started here")
        lives = True
        try:
            future.result()
        except BrokenProcessPool:
            lives = False
            fail(job, folder, "it was killed")
            self.close()
        return job, time.monotonic() - self._since, lives

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextlib.contextmanager
def _slots(count: int, gpus: Sequence[str]) -> Iterator[list[_Slot]]:
    slots = [_Slot(gpus[number % len(gpus)] if gpus else None) for number in range(count)]
    others = set(multiprocessing.active_children())
    try:
        yield slots
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # a signal to this process: running jobs save their state and leave
        raise
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
