"""A distributed training on a real SLURM of two nodes that is told to stop and requeued ends as an undisturbed one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import clusters

TOOLS = Path(__file__).parents[2] / "tools"


def test_a_requeued_training_loses_no_step_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import preemptions

    monkeypatch.setenv("SLURM_CONF", "")
    monkeypatch.setenv("MASTER_PORT", str(*clusters.free_ports(1)))  # job 1 of another SLURM here would take the same
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOOLS), *sys.path]))
    daemons = clusters.start_slurm(tmp_path / "slurm")
    try:
        row, end = preemptions.preempted(tmp_path, [preemptions.ASKED], 250)
    finally:
        clusters.stop(daemons)
    assert 0 < row["at step"] < 250
    assert row["at step"] % preemptions.EVERY, "the moment tells nothing: a checkpoint was due at this step anyway"
    assert (row["saved"], row["done again"]) == (row["at step"], 0)
    assert end == {"equal": True, "folders": ["run"]}
