"""A study without a terminal says at an interval how far it is."""

from __future__ import annotations

import re
import time

from repro.studies.executors.progress import StudyProgress
from repro.studies.jobs import Job, Size


def jobs(*names):
    return [Job(name, "predict", size=Size(seconds=60)) for name in names]


def wait_for_lines(capsys, count):
    told, end = "", time.monotonic() + 20
    while told.count("\n") < count and time.monotonic() < end:
        time.sleep(0.01)
        told += capsys.readouterr().out
    return told.splitlines()


def test_lines_tell_what_runs_and_what_is_left(tmp_path, capsys):
    with StudyProgress(jobs("one", "two"), tmp_path, 1, seconds=0.02) as progress:
        progress.show(["one"])
        assert "jobs: 0 of 2 (0 %), running one, about 2 min left" in wait_for_lines(capsys, 2)
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / "one.done").touch()
        progress.show(["two"])
        assert re.fullmatch(r"jobs: 1 of 2 \(50 %\), running two, about 1 min left", wait_for_lines(capsys, 3)[-1])
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_no_line_before_the_interval_is_over(tmp_path, capsys):
    with StudyProgress(jobs("one"), tmp_path, 1) as progress:
        progress.show(["one"])
    assert capsys.readouterr().out == ""
