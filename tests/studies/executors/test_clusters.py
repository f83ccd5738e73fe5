"""The executors of clusters, on a real SLURM and a real Ray of two nodes: order, failures, a launcher that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import clusters
import pytest

from repro.errors import UserError
from repro.studies.executors import Ray, Slurm
from repro.studies.jobs import Job, Size, is_done

LAUNCHER = "import sys, test_clusters; test_clusters.launch(sys.argv[1])"


def jobs():
    """``repro --version`` stands for what succeeds, ``repro plugins`` with an option that it lacks for what fails."""
    small = Size(seconds=1, memory=0.1)
    return [
        Job("fit", "--version", {"output": "x"}, size=small),
        Job("draw", "--version", {"output": "x"}, after=("fit",), size=small),
        Job("broken", "plugins", {"output": "x"}, size=small),
        Job("waits", "--version", {"output": "x"}, after=("broken",), size=small),
    ]


def launch(folder):
    from pathlib import Path

    Slurm(poll=0.2, options={"begin": "now+4"}).run(jobs(), Path(folder), print)


def attempts(folder):
    """How often each job was begun."""
    logs = sorted((folder / "jobs").glob("*.log"))
    return {log.stem: log.read_text().count("$ repro") for log in logs}


def check(folder):
    assert [is_done(job, folder) for job in jobs()] == [True, True, False, False]
    assert attempts(folder) == {"fit": 1, "draw": 1, "broken": 2}
    done = [(folder / "jobs" / f"{name}.done").stat().st_mtime for name in ("fit", "draw")]
    assert done == sorted(done)
    assert not (folder / "jobs" / "waits.yaml").exists()


FAILURE = r"job broken failed: 2 times: repro: error: .*\(log: .*broken.log\); 1 more wait for them"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the executor Slurm needs it: pip install 'repro[cluster]'")
    monkeypatch.setenv("SLURM_CONF", "")
    running = clusters.start_slurm(tmp_path / "slurm")
    yield
    clusters.stop(running)


def test_slurm_goes_on_where_a_killed_launcher_stopped(slurm, tmp_path):
    folder, executor = tmp_path / "study", Slurm(poll=0.2)
    paths = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, folder], env=os.environ | {"PYTHONPATH": paths})
    for _ in range(300):
        if len(executor.running(folder)) == 4:
            break
        time.sleep(0.1)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert set(executor.running(folder)) == {job.name for job in jobs()}
    with pytest.raises(UserError, match=FAILURE):
        executor.run(jobs(), folder, print)
    check(folder)
    assert executor.running(folder) == {}


def test_slurm_jobs_can_be_cancelled(slurm, tmp_path):
    executor = Slurm(options={"begin": "now+600"})
    executor._submit(jobs(), tmp_path)
    assert sorted(executor.cancel(tmp_path)) == ["broken", "draw", "fit", "waits"]
    for _ in range(100):
        if not executor.running(tmp_path):
            break
        time.sleep(0.1)
    assert executor.running(tmp_path) == {}
    assert executor.cancel(tmp_path) == []


def test_sizes_and_options_are_those_of_sbatch(tmp_path):
    job = Job("a", "fit", {"output": "x"}, size=Size(seconds=3000, gpus=2, memory=1.5))
    asked = Slurm(partition="gpu", account="me", at_once=2)._parameters(job, tmp_path, ["afterok:7"])
    assert (asked["timeout_min"], asked["slurm_mem"], asked["cpus_per_task"]) == (150, "1536M", 1)
    assert asked["slurm_additional_parameters"] == {
        "requeue": True, "kill-on-invalid-dep": "yes", "dependency": "afterok:7",
        "partition": "gpu", "account": "me", "gres": "gpu:2",
    }  # fmt: skip
    assert Slurm(minutes=5)._parameters(job, tmp_path, [])["timeout_min"] == 5


def test_ray_runs_jobs_on_two_raylets(tmp_path, tmp_path_factory):
    address = clusters.start_ray(tmp_path_factory.getbasetemp().parent / "ray")
    try:
        with pytest.raises(UserError, match=FAILURE):
            Ray(address).run(jobs(), tmp_path, print)
    finally:
        clusters.stop_ray(address)
    check(tmp_path)
