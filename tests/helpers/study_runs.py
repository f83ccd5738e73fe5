"""Studies run in this process, and the tables that they write."""

from __future__ import annotations

import csv

from repro.records import flat
from repro.studies.jobs import is_done, with_settings

QUIET = {"logger": False, "enable_progress_bar": False}


class Here:
    """Runs the jobs in this process, trainings cut short."""

    def __init__(self, steps):
        self.steps, self.ran = steps, []

    def run(self, jobs, folder, command):
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        done = set()
        for job in jobs:
            assert done.issuperset(job.after)
            done.add(job.name)
            if not is_done(job, folder):
                fits = job.command == "fit"
                short = with_settings(job, {"trainer": {**QUIET, "max_steps": self.steps}}) if fits else job
                assert command(short.words(folder)) == 0
                job.words(folder)
                (folder / "jobs" / f"{job.name}.done").touch()
                self.ran.append(job.name)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def options(job):
    """Settings of a job by dotted key, a class under the key of its arguments."""
    return {key.removeprefix("."): value for key, value in flat(job.settings, "").items()}
