"""Progress of long work where there is no terminal: lines at an interval, of commands that draw and score too."""

from __future__ import annotations

import re

import pytest

from repro.cli.main import main
from repro.data import progress
from repro.data.progress import slow_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_at_every_interval_and_none_before(clock, capsys):
    with slow_progress("drawing", 1000) as done:
        for second in (10, 29, 31, 45, 62):
            clock[0] = 100.0 + second
            done(second * 10)
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 310 of 1,000 (31 %), 10 a second, 0:01:09 left",
        "drawing: 620 of 1,000 (62 %), 10 a second, 0:00:38 left",
    ]


def test_commands_that_draw_and_score_tell_how_far_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    quiet = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "digits/mlp_edm", "--trainer.max_steps", "1", "--output", "run", *quiet]) == 0
    capsys.readouterr()
    assert main(["predict", "--ckpt_path", "run", "--seeds", "0-9", "--shard_size", "5"]) == 0
    told = capsys.readouterr().err
    assert re.findall(r"drawing: (\d+) of 10 \((\d+) %\), .* a second, .* left", told) == [("5", "50"), ("10", "100")]
    words = ["test", "--ckpt_path", "run", "--seeds", "0-9", "--descriptor", "Pixels", "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert re.findall(r"scoring: \d+ of \d+ \(100 %\), .* a second, .* left", told)
    assert re.findall(r"Pixels: 10 of 10 \(100 %\), .* a second, 0:00:00 left", told)
