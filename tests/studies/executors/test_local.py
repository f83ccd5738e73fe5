"""The executor of this machine: order, only what is missing, failures that hold up nobody else, workers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from repro.errors import UserError
from repro.studies.executors import Local
from repro.studies.executors.local import _Slot
from repro.studies.jobs import Job, is_done, remaining
from repro.studies.work import run_job
from repro.testing import executors as laws


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def command(words):
    """Stands for ``repro``: adds the job's name to a file in the study's folder, or fails, or is killed."""
    kind, path = words[0], words[2]
    name = os.path.basename(path).removesuffix(".yaml")
    if kind == "fail":
        print("repro: error: no luck", file=sys.stderr)
        return 2
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(os.path.join(os.path.dirname(path), "..", "note.txt"), "a") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')}{name}\n" if kind == "gpu" else f"{name}\n")
    return 0


def jobs(**commands):
    return [
        Job("fit", commands.get("fit", "write"), {"output": "x"}),
        Job("draw", commands.get("draw", "write"), {"output": "x"}, after=("fit",)),
        Job("score", commands.get("score", "write"), {"output": "x"}, after=("draw", "fit")),
        Job("other", commands.get("other", "write"), {"output": "x"}),
    ]


def note(folder):
    return (folder / "note.txt").read_text().split()


@pytest.mark.parametrize("workers", [1, 2])
def test_laws(tmp_path, workers):
    laws.check_executor(lambda: Local(workers, retries=0), tmp_path)
    assert (tmp_path / "check_order" / "jobs" / "fit.log").read_text().startswith("$ repro write --config")


class _Eager(Local):
    def run(self, jobs, folder, command):
        for job in reversed(jobs):
            run_job(job, folder, command)


class _Deaf(Local):
    def run(self, jobs, folder, command):
        for job in jobs:
            run_job(job, folder, command)


@pytest.mark.parametrize(("broken", "message"), [(_Eager, "draw ran before fit"), (_Deaf, "no UserError says so")])
def test_the_laws_catch_a_broken_executor(broken, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        laws.check_executor(broken, tmp_path)


def test_only_what_is_missing_is_done(tmp_path):
    (tmp_path / "jobs").mkdir()
    for name in ("fit", "other"):
        (tmp_path / "jobs" / f"{name}.done").touch()
    Local(1, retries=0).run(jobs(), tmp_path, command)
    assert note(tmp_path) == ["draw", "score"]


@pytest.mark.parametrize(
    ("kind", "reason"), [("fail", r"repro: error: no luck \(log: .*draw\.log\)"), ("die", "it was killed")]
)
def test_a_failed_job_holds_up_only_those_that_need_it_and_can_be_mended(tmp_path, kind, reason):
    with pytest.raises(UserError, match=rf"job draw failed: {reason}.*; 1 more wait for them; run the same command"):
        Local(1, retries=0).run(jobs(draw=kind), tmp_path, command)
    assert note(tmp_path) == ["fit", "other"]
    assert [job.name for job in remaining(jobs(), tmp_path)] == ["draw", "score"]
    Local(1, retries=0).run(jobs(), tmp_path, command)
    assert note(tmp_path) == ["fit", "other", "draw", "score"]
    assert not (tmp_path / "jobs" / "draw.failed").exists()


def test_a_job_is_tried_again_and_says_how_often(tmp_path):
    job = jobs(fit="fail")[0]
    assert not run_job(job, tmp_path, command, retries=2)
    assert (tmp_path / "jobs" / "fit.log").read_text().count("no luck") == 3
    assert (tmp_path / "jobs" / "fit.failed").read_text() == "3 times: repro: error: no luck\n"


def test_a_job_that_another_process_has_done_meanwhile_is_not_run_again(tmp_path):
    job = jobs()[0]
    assert run_job(job, tmp_path, command)
    assert run_job(job, tmp_path, command)
    assert note(tmp_path) == ["fit"]


def test_a_worker_sees_its_gpu_only(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    Local().run(jobs(fit="gpu", other="gpu"), tmp_path, command)
    assert {"4fit", "7other"} <= set(note(tmp_path)) or {"7fit", "4other"} <= set(note(tmp_path))


def test_a_worker_ends_with_the_process_that_runs_the_study(tmp_path):
    """A study that is killed leaves nobody behind who goes on in its folder."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        slot = _Slot(None)
        slot.start(jobs()[0], tmp_path, command, 0)
        slot.future.result()
        os.write(writer, str(next(iter(slot._pool._processes))).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    worker = int(os.read(reader, 20))
    os.waitpid(child, 0)
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker is still there")
    assert is_done(jobs()[0], tmp_path)


LAUNCHER = """
import sys
from pathlib import Path
from repro.cli.main import main
from repro.studies.executors import Local
from repro.studies.jobs import Job
from repro.training import signals

FIT = {"config": "digits/mlp_edm", "output": sys.argv[1] + "/run", "model": {"network": {"width": 8}},
       "data": {"batch_size": 8}, "trainer": {"max_steps": int(sys.argv[2]), "accelerator": "cpu", "logger": False}}
if __name__ == "__main__":
    try:
        with signals.owned():
            Local(1).run([Job("fit", "fit", FIT)], Path(sys.argv[1]), main)
    except signals.Interrupted as stop:
        sys.exit(stop.code)
"""


def test_a_signal_to_the_launcher_ends_running_jobs_at_a_step_that_is_saved(tmp_path):
    """Also when a scheduler signals all processes at once, and the launcher hands it on as well."""
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    words = [sys.executable, tmp_path / "launcher.py", tmp_path, "1000000"]
    launcher = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    log, end = tmp_path / "jobs" / "fit.log", time.monotonic() + 120
    while not (log.exists() and "steps, in" in log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(launcher.pid, signal.SIGTERM)
    assert launcher.wait(60) == 143
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] > 0
    assert log.read_text().count("$ repro") == 1
    assert "stopped by SIGTERM" in (tmp_path / "jobs" / "fit.failed").read_text()
