"""What goes wrong between the processes of a distributed run is one line; one without work takes part."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from repro.banks import Bank
from repro.cli.main import main

FIT = (
    "fit --config digits/mlp_edm --trainer.num_nodes 2 --trainer.devices 1 --trainer.accelerator cpu "
    "--trainer.strategy ddp --trainer.logger false"
)
WITHIN = 30.0
GONE = "repro: error: another process of this run has ended, so this one ends too; its own last line says why"


def started(words, port, rank):
    """One of two processes, as torchrun starts them."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}
    environment = os.environ | meeting | {"WORLD_SIZE": "2", "RANK": str(rank), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "repro", *words]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def pair(tmp_path):
    """Two processes in the middle of a training."""
    words = [
        *FIT.split(),
        "--trainer.max_steps",
        "1000000",
        "--data.batch_size",
        "8",
        "--output",
        str(tmp_path / "run"),
    ]
    config = tmp_path / "often.yaml"
    config.write_text("trainer: {callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 5}}]}\n")
    port = free_port()
    both = [started([*words, "--config", str(config)], port, rank) for rank in (0, 1)]
    end = time.monotonic() + 240
    while not (tmp_path / "run" / "run.json").is_file():
        assert time.monotonic() < end
        assert all(each.poll() is None for each in both), [each.communicate() for each in both if each.poll()]
        time.sleep(0.05)
    yield both
    for each in both:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_ends_the_other_with_one_line(dying, pair):
    pair[dying].kill()
    error = pair[1 - dying].communicate(timeout=WITHIN)[1]
    assert pair[1 - dying].returncode == 2
    assert error.count(GONE) == 1, error
    assert "Traceback" not in error


def test_a_process_that_is_asked_to_stop_stops_both_at_one_step(pair, tmp_path):
    pair[1].send_signal(signal.SIGTERM)
    errors = [each.communicate(timeout=WITHIN)[1] for each in pair]
    assert [each.returncode for each in pair] == [143, 143], errors
    assert all("repro: stopped by SIGTERM" in error for error in errors), errors
    assert not any("Traceback" in error for error in errors)


def test_a_port_that_another_program_uses_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = started([*FIT.split(), "--output", str(tmp_path / "run")], port, 0)
        error = process.communicate(timeout=240)[1]
    assert process.returncode == 2
    assert f"repro: error: port {port} is used by another program on this machine; give a free one" in error
    assert "Traceback" not in error


def test_processes_without_work_take_part(tmp_path, monkeypatch):
    """Three seeds are one shard, 250 one batch: the second process has nothing to do, and nobody waits for ever."""
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "digits/mlp_edm", "--trainer.max_steps", "1", "--output", "run", *quiet]) == 0
    draw = ["predict", "--ckpt_path", "run", "--trainer.accelerator", "cpu", "--seeds", "0-2"]
    score = ["test", "--ckpt_path", "run", "--trainer.accelerator", "cpu", "--descriptor", "Pixels", "--seeds", "0-249"]
    values = {}
    for processes in ("1", "2"):
        for words in ([*draw, "--output", f"bank{processes}"], score):
            words = [*words, "--trainer.devices", processes]
            if processes == "1":
                assert main(words) == 0
            else:
                subprocess.run([sys.executable, "-m", "repro", *words], check=True, timeout=240)
        with (tmp_path / "run" / "unconditional_0-249.scores.csv").open() as file:
            values[processes] = {row["score"]: (row["value"], row["n"]) for row in csv.DictReader(file)}
    assert Bank.open("bank1").fingerprint == Bank.open("bank2").fingerprint
    assert values["1"] == values["2"]
