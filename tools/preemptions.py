"""Preempts a distributed training on a SLURM of two nodes again and again: it ends as if nothing had been.

The job of ``configs/README.md`` (one task a node, two nodes) is told to stop by SIGUSR1 and put back into the queue at
random moments, once cancelled and submitted again, and once one of its two processes is killed. A callback writes down
every step; so the steps that were done twice are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from trainings import state_of_all

EVERY = 100
ASKED, CANCELLED, KILLED = "SIGUSR1 and requeue", "scancel and submitted again", "SIGKILL of one process"
_CONFIG = """
config: digits/mlp_edm
model: {{network: {{width: 32}}}}
data: {{batch_size: 8, subset: 512}}
trainer:
  max_steps: {steps}
  num_nodes: 2
  devices: 1
  accelerator: cpu
  strategy: ddp
  logger: false
  callbacks:
    - {{class_path: RunCheckpoint, init_args: {{every_n_steps: {every}}}}}
    - {{class_path: preemptions.StepLog}}
"""
_JOB = """#!/bin/bash
#SBATCH --nodes 2 --ntasks-per-node 1 --requeue --open-mode append --output {folder}/log
cd {folder}
srun {python} -W ignore -m repro fit --config {folder}/config.yaml --output {folder}/run
code=$?
if [ $code -eq 138 ]; then scontrol requeue $SLURM_JOB_ID; fi
exit $code
"""


class StepLog(L.Callback):
    """Writes the number of every step that is done to ``steps`` beside the run, and takes a moment over it."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Writes the step's number."""
        if trainer.is_global_zero:
            with open(Path(trainer.default_root_dir).parent / "steps", "a") as file:
                file.write(f"{trainer.global_step}\n")
        time.sleep(0.005)


class Training:
    """One job in a folder of its own."""

    def __init__(self, folder: Path, steps: int) -> None:
        folder.mkdir()
        (folder / "config.yaml").write_text(_CONFIG.format(steps=steps, every=EVERY))
        (folder / "job").write_text(_JOB.format(folder=folder, python=sys.executable))
        self.folder, self.number = folder, ""

    def submit(self) -> None:
        """Hands the job to the queue."""
        self.number = _told("sbatch", "--parsable", str(self.folder / "job"))

    def steps(self) -> list[int]:
        """Every step that was done, in the order of time."""
        path = self.folder / "steps"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def status(self) -> dict[str, Any]:
        """``run.json``, empty where there is none yet."""
        path = self.folder / "run" / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait(self, what: str, test: Any, seconds: float = 300) -> None:
        """Waits until something holds.

        Raises:
            TimeoutError: it never does.
        """
        end = time.monotonic() + seconds
        while not test():
            if time.monotonic() > end or (self.is_over() and not test()):
                raise TimeoutError(f"{what} was not seen: {(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)

    def state(self) -> str:
        """The job's state, also after its end; empty where SLURM does not answer."""
        words = ["squeue", "-h", "-j", self.number, "-t", "all", "-o", "%T"]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()

    def is_over(self) -> bool:
        """The job has ended, well or not."""
        return self.state() in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")

    def under_way(self, rng: random.Random) -> None:
        """Waits until the job does steps, and a random moment longer."""
        before = len(self.steps())
        self.wait("a step", lambda: len(self.steps()) > before)
        time.sleep(rng.uniform(0, 2.0))


def _told(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _process_of(rank: int, folder: Path) -> int:
    """Number of the process that trains as one rank in a folder."""
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        if f"SLURM_PROCID={rank}".encode() in environment and str(folder).encode() in words and b"-m\0repro" in words:
            return int(entry.name)
    raise ProcessLookupError(f"no process of rank {rank}")


def _preempt(training: Training, kinds: Sequence[str], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Preempts a job; gives one row each time: what was done, at which step, how many steps were done again."""
    training.submit()
    for kind in kinds:
        training.under_way(rng)
        begin = time.monotonic()
        if kind == ASKED:
            _told("scancel", "--signal=USR1", training.number)
            training.wait("requeue", lambda: training.state() == "PENDING")
        elif kind == CANCELLED:
            _told("scancel", training.number)
            training.wait("the end of the job", training.is_over)
            training.submit()
        else:
            os.kill(_process_of(1, training.folder), signal.SIGKILL)
            training.wait("the end of the job", training.is_over)
            training.submit()
        ended = time.monotonic() - begin
        before = len(training.steps())
        row = {"what": kind, "at step": training.steps()[-1], "saved": training.status().get("step", 0)}
        training.wait("a step", lambda seen=before: len(training.steps()) > seen)
        steps = training.steps()
        again = max(0, steps[before - 1] + 1 - steps[before])
        yield row | {"done again": again, "seconds to end": round(ended, 1)}


def preempted(root: Path, kinds: Sequence[str], steps: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Runs a training undisturbed and one that is preempted, on the SLURM that runs.

    Args:
        root: Folder for both.
        kinds: How it is preempted each time.
        steps: Length of the training.
        seed: Of the moments.

    Yields:
        One row each time, then whether the ends are equal, and the folders that are there.
    """
    whole, other = Training(root / "whole", steps), Training(root / "preempted", steps)
    whole.submit()
    whole.wait("the end", lambda: whole.status().get("finished"), 900)
    yield from _preempt(other, kinds, random.Random(seed))
    other.wait("the end", lambda: other.status().get("finished"), 900)
    one, two = (state_of_all(training.folder / "run") for training in (whole, other))
    same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    yield {"equal": same, "folders": sorted(path.name for path in other.folder.iterdir() if path.is_dir())}


def main() -> int:
    """Prints what :func:`preempted` gives; 1 where something was lost or ended differently."""
    import clusters

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5, help="How often it is told to stop and put back.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options = parser.parse_args()
    kinds, rows = [ASKED] * options.count + [CANCELLED, KILLED], []
    with tempfile.TemporaryDirectory(prefix="preemptions") as root:
        daemons = clusters.start_slurm(Path(root) / "slurm")
        try:
            for row in preempted(Path(root), kinds, 1500, options.seed):
                rows.append(row)
                print(json.dumps(row), flush=True)
        finally:
            clusters.stop(daemons)
    *each, end = rows
    lost = [row for row in each if row["done again"] > (EVERY if row["what"] == KILLED else 0)]
    return int(bool(lost) or end != {"equal": True, "folders": ["run"]})


if __name__ == "__main__":
    sys.exit(main())
