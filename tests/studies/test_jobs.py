"""Jobs of studies: order, doing only what is missing, failures that name their log."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repro import registry
from repro.cli.main import main
from repro.errors import UserError
from repro.studies.jobs import Job, LocalExecutor, is_done, remaining


def command(words: list[str]) -> int:
    """Stands for ``repro``: writes a line to a file, or fails."""
    if words[0] == "fail":
        print("repro: error: no luck", file=sys.stderr)
        return 2
    with open(words[1], "a") as file:
        file.write(f"{words[2]}\n")
    return 0


def jobs(folder: Path) -> list[Job]:
    note = str(folder / "note.txt")
    return [
        Job("draw", ("write", note, "draw"), after=("fit",), seconds=1),
        Job("fit", ("write", note, "fit"), seconds=1),
        Job("score", ("write", note, "score"), after=("draw", "fit"), seconds=1),
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_wait_for_what_they_need_and_run_once(tmp_path, workers):
    executor = LocalExecutor(command, workers)
    executor.run(jobs(tmp_path), tmp_path)
    executor.run(jobs(tmp_path), tmp_path)
    assert (tmp_path / "note.txt").read_text().split() == ["fit", "draw", "score"]
    assert remaining(jobs(tmp_path), tmp_path) == []
    assert (tmp_path / "jobs" / "fit.log").read_text().startswith("$ repro write")


def test_only_what_is_missing_is_done(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "fit.done").touch()
    LocalExecutor(command, 1).run(jobs(tmp_path), tmp_path)
    assert (tmp_path / "note.txt").read_text().split() == ["draw", "score"]


def test_a_failed_job_stops_the_study_and_can_be_mended(tmp_path):
    broken = [jobs(tmp_path)[1], Job("draw", ("fail",), after=("fit",)), jobs(tmp_path)[2]]
    with pytest.raises(UserError, match=r"job draw failed: repro: error: no luck \(log: .*draw\.log\)"):
        LocalExecutor(command, 1).run(broken, tmp_path)
    assert is_done(broken[0], tmp_path)
    assert [job.name for job in remaining(broken, tmp_path)] == ["draw", "score"]
    LocalExecutor(command, 1).run(jobs(tmp_path), tmp_path)
    assert (tmp_path / "note.txt").read_text().split() == ["fit", "draw", "score"]


def test_an_interrupted_job_goes_on_from_its_checkpoint(tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    job = Job("fit", ("fit", "--output", "x"), checkpoint=checkpoint)
    assert job.words() == ["fit", "--output", "x"]
    checkpoint.touch()
    assert job.words() == ["fit", "--output", "x", "--ckpt_path", str(checkpoint)]


@pytest.mark.parametrize("name", registry.names("studies"))
def test_jobs_of_a_study_have_a_legal_order(name, tmp_path):
    planned = registry.load("studies", name)().jobs(tmp_path, "tiny")
    seen = set()
    for job in planned:
        assert job.name not in seen
        assert seen.issuperset(job.after), job.name
        seen.add(job.name)


@pytest.mark.parametrize("name", registry.names("studies"))
def test_a_dry_run_prints_the_plan_and_writes_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", name, "--dry-run"]) == 0
    assert "jobs are left: about" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quickstrt"], "unknown study 'quickstrt'; did you mean 'quickstart'"),
        (["quickstart", "--workers", "0"], "workers is 0; give at least 1"),
        (["quickstart", "--scale", "huge"], "scale"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
