"""Jobs on a Ray cluster, or on a local one that is started for the study."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.studies.executors.base import Command, Executor, Ready
from repro.studies.executors.progress import StudyProgress
from repro.studies.jobs import Job
from repro.studies.work import Subprocess, check_finished, fail, run_job

__all__ = ["Ray"]


class Ray(Executor):
    """Runs jobs as Ray tasks, as many as their cores and GPUs allow; they end with the command that runs them.

    The study's folder must be on a file system that all nodes see.

    Args:
        address: Of the cluster, for example ``auto`` for the one that this machine belongs to; None starts one here.
        cores: Cores of each job.
        memory: Main memory of each job in GB that Ray sets aside; None sets none aside.
        retries: How often a job that failed, or whose node was lost, is tried again.
    """

    def __init__(
        self, address: str | None = None, cores: float = 1, memory: float | None = None, retries: int = 1
    ) -> None:
        super().__init__(retries)
        if cores <= 0:
            raise UserError(f"executor.cores is {cores}; give more than 0")
        self.address, self.cores, self.memory = address, cores, memory

    def run(self, jobs: Sequence[Job], folder: Path, command: Command) -> None:
        """Runs what is missing; see :meth:`Executor.run`."""
        ray = _import_ray()
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster at {self.address}: {error}; start one: ray start --head") from error
        try:
            self._run(ray, jobs, folder.absolute())
        finally:
            ray.shutdown()
        check_finished(jobs, folder)

    def _run(self, ray: Any, jobs: Sequence[Job], folder: Path) -> None:
        ready, running = Ready(jobs, folder), dict[Any, tuple[Job, float]]()
        with StudyProgress(jobs, folder, int(ray.cluster_resources().get("CPU", 1) // self.cores)) as bar:
            while True:
                while (job := ready.take()) is not None:
                    memory = {} if self.memory is None else {"memory": self.memory * 2**30}
                    task = ray.remote(num_cpus=self.cores, num_gpus=job.size.gpus, max_retries=self.retries, **memory)
                    running[task(_work).remote(job, folder, self.retries, os.getcwd())] = job, time.monotonic()
                if not running:
                    break
                bar.show([job.name for job, _ in running.values()])
                for task in ray.wait(list(running), num_returns=1)[0]:
                    job, since = running.pop(task)
                    try:
                        ray.get(task)
                    except ray.exceptions.RayError as error:
                        fail(job, folder, f"Ray ended it: {str(error).strip().splitlines()[-1]}")
                    bar.ended(job, time.monotonic() - since)
                    ready.end(job)


def _work(job: Job, folder: Path, retries: int, cwd: str) -> bool:
    os.chdir(cwd)
    return run_job(job, folder, Subprocess(), retries)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # jobs without a GPU keep CUDA_VISIBLE_DEVICES
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError("the executor Ray needs ray; type: pip install 'repro[cluster]'") from error
