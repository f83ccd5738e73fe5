"""Jobs on a SLURM cluster, each a SLURM job, through submitit."""

from __future__ import annotations

import hashlib
import importlib
import math
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.studies.executors.base import Command, Executor
from repro.studies.executors.progress import StudyProgress
from repro.studies.jobs import Job, file_of, is_done
from repro.studies.work import Subprocess, check_finished, fail, run_job

__all__ = ["Slurm"]

_SHORTEST = 10
_MARGIN = 3


class Slurm(Executor):
    """Submits every job at once, with its dependencies, and waits; the jobs go on when this command ends.

    SLURM's queue says what waits and runs, the study's folder what is done and what failed: the same command, from any
    login node, submits only what is missing. A job that is preempted is put back into the queue and goes on from its
    newest state. The folder must be on a file system that all nodes see.

    Args:
        partition: As ``sbatch --partition``, like the next four.
        account: Who pays.
        qos: Quality of service.
        gres: Generic resources, for example ``gpu:a100:1``; by default as many GPUs as the job's size says.
        constraint: Features that the nodes must have.
        minutes: Time limit of each job; by default three times what it is expected to take, at least 10.
        memory: Main memory of each job in GB; by default its size's.
        cores: Cores of each job.
        at_once: Most jobs that run at a time; None is as many as SLURM lets.
        options: Further options of ``sbatch`` by name.
        retries: How often a job that failed is tried again, at once and on the same node.
        poll: Seconds between two looks at the queue.

    Raises:
        UserError: a number that makes no sense.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        gres: str | None = None,
        constraint: str | None = None,
        minutes: int | None = None,
        memory: float | None = None,
        cores: int = 1,
        at_once: int | None = None,
        options: dict[str, str] | None = None,
        retries: int = 1,
        poll: float = 10.0,
    ) -> None:
        super().__init__(retries)
        for name, value in (("minutes", minutes), ("memory", memory), ("cores", cores), ("at_once", at_once)):
            if value is not None and value <= 0:
                raise UserError(f"executor.{name} is {value}; give more than 0")
        self.queue = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "gres": gres,
            "constraint": constraint,
        }
        self.minutes, self.memory, self.cores, self.at_once = minutes, memory, cores, at_once
        self.options, self.poll = options or {}, poll

    def run(self, jobs: Sequence[Job], folder: Path, command: Command) -> None:
        """Submits what is neither done nor in the queue, and waits; see :meth:`Executor.run`."""
        numbers = self._submit(jobs, folder)
        named = {job.name: job for job in jobs}
        try:
            with StudyProgress(jobs, folder, self.at_once or len(numbers)) as bar:
                while running := self.running(folder):
                    bar.show([name for name, state in running.items() if state == "RUNNING"])
                    time.sleep(self.poll)
                bar.show([])
        except KeyboardInterrupt:
            hint = "the jobs go on; the same command waits for them, with --cancel it takes them back"
            raise KeyboardInterrupt(hint) from None
        for name, number in numbers.items():
            self._explain(named[name], named, number, folder)
        check_finished(jobs, folder)

    def running(self, folder: Path) -> Mapping[str, str]:
        """Returns the jobs of a folder in SLURM's queue: name -> state."""
        return {name: state for name, (_, state) in _queue(folder).items()}

    def cancel(self, folder: Path) -> list[str]:
        """Takes the jobs of a folder out of SLURM's queue; returns their names."""
        queue = _queue(folder)
        if queue:
            _slurm("scancel", *(number for number, _ in queue.values()))
        return list(queue)

    def _submit(self, jobs: Sequence[Job], folder: Path) -> dict[str, str]:
        """SLURM's numbers of the jobs that are not done; those in the queue already are not submitted again."""
        numbers = {name: number for name, (number, _) in _queue(folder).items()}
        lanes: list[str] = []
        submitit = _import_submitit()
        for job in jobs:
            if is_done(job, folder) or job.name in numbers:
                continue
            file_of(folder, job, "failed").unlink(missing_ok=True)
            after = [f"afterok:{numbers[name]}" for name in job.after if name in numbers]
            if self.at_once and len(lanes) >= self.at_once:
                after.append(f"afterany:{lanes[-self.at_once]}")
            executor = submitit.AutoExecutor(folder=str(folder / "jobs" / "slurm"), cluster="slurm")
            executor.update_parameters(**self._parameters(job, folder, after))
            numbers[job.name] = executor.submit(_Work(job, folder.absolute(), self.retries)).job_id
            lanes.append(numbers[job.name])
        return numbers

    def _parameters(self, job: Job, folder: Path, after: Sequence[str]) -> dict[str, Any]:
        minutes = self.minutes or max(_SHORTEST, math.ceil(_MARGIN * job.size.seconds / 60))
        further: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", **self.options}
        if after:
            further["dependency"] = ",".join(after)
        further |= {name: value for name, value in self.queue.items() if value is not None}
        if self.queue["gres"] is None and job.size.gpus:
            further["gres"] = f"gpu:{job.size.gpus}"
        return {
            "name": _slurm_name(folder, job.name),
            "timeout_min": minutes,
            "slurm_mem": f"{math.ceil(1024 * (self.memory or job.size.memory))}M",
            "cpus_per_task": self.cores,
            "slurm_additional_parameters": further,
        }

    def _explain(self, job: Job, named: Mapping[str, Job], number: str, folder: Path) -> None:
        """Writes down why SLURM ended a job that says nothing itself."""
        held_up = any(not is_done(named[name], folder) for name in job.after)
        if not is_done(job, folder) and not held_up and not file_of(folder, job, "failed").is_file():
            shown = _slurm("scontrol", "--oneliner", "show", "job", number, check=False)
            states = [word.removeprefix("JobState=") for word in shown.split() if word.startswith("JobState=")]
            fail(job, folder, f"SLURM ended it: {states[0] if states else 'it is gone'}")


class _Work:
    """What a SLURM job does; put back into the queue when it is preempted."""

    def __init__(self, job: Job, folder: Path, retries: int) -> None:
        self.job, self.folder, self.retries = job, folder, retries
        self.command = Subprocess()

    def __call__(self) -> None:
        if not run_job(self.job, self.folder, self.command, self.retries):
            raise RuntimeError(f"job {self.job.name} failed; see {file_of(self.folder, self.job, 'log')}")

    def checkpoint(self) -> Any:
        """Lets the command save its state; submitit asks for this before SLURM takes the node away."""
        self.command.stop()
        return _import_submitit().helpers.DelayedSubmission(_Work(self.job, self.folder, self.retries))


def _import_submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise UserError("the executor Slurm needs submitit; type: pip install 'repro[cluster]'") from error


def _slurm_name(folder: Path, job: str) -> str:
    return f"repro-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}-{job}"


def _queue(folder: Path) -> dict[str, tuple[str, str]]:
    """The jobs of a folder that SLURM has not ended: name -> number, state."""
    start, queue = _slurm_name(folder, ""), {}
    for line in _slurm("squeue", "--me", "--noheader", "--format=%i %T %j").splitlines():
        number, state, name = line.split(maxsplit=2)
        if name.startswith(start):
            queue[name.removeprefix(start)] = number, state
    return queue


def _slurm(*words: str, check: bool = True) -> str:
    if shutil.which(words[0]) is None:
        raise UserError(f"the executor Slurm needs the command {words[0]}; run this on a login node of the cluster")
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode:
        raise UserError(f"{words[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
