"""An executor: where the jobs of a study run."""

from collections.abc import Sequence
from pathlib import Path

from repro.studies import Job, check_finished, run_job
from repro.studies.executors import Command, Executor, Ready

__all__ = ["OneByOne"]


class OneByOne(Executor):
    """Runs jobs one after the other in this process."""

    def run(self, jobs: Sequence[Job], folder: Path, command: Command) -> None:
        """Runs what is missing; a job that fails holds up only those that need it."""
        ready = Ready(jobs, folder)
        while (job := ready.take()) is not None:
            run_job(job, folder, command, self.retries)
            ready.end(job)
        check_finished(jobs, folder)
