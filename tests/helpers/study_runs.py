"""Studies run in this process, and the tables that they write."""

from __future__ import annotations

import csv

from repro.cli.main import main
from repro.studies.jobs import is_done

QUIET = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.max_steps")


class Here:
    """Runs the jobs in this process, trainings cut short."""

    def __init__(self, steps):
        self.steps, self.ran = str(steps), []

    def run(self, jobs, folder):
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        done = set()
        for job in jobs:
            assert done.issuperset(job.after)
            done.add(job.name)
            if not is_done(job, folder):
                short = (*QUIET, self.steps) if job.command[0] == "fit" else ()
                assert main([*job.command, *short]) == 0
                (folder / "jobs" / f"{job.name}.done").touch()
                self.ran.append(job.name)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
