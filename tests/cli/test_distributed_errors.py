"""What goes wrong between the processes of a distributed run is one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

FIT = (
    "fit --config digits/mlp_edm --trainer.num_nodes 2 --trainer.devices 1 --trainer.accelerator cpu "
    "--trainer.strategy ddp --trainer.logger false"
)


def test_a_port_that_another_program_uses_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "LOCAL_RANK": "0"}
        words = [sys.executable, "-m", "repro", *FIT.split(), "--output", str(tmp_path / "run")]
        environment = os.environ | meeting | {"WORLD_SIZE": "2", "RANK": "0", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert f"repro: error: port {port} is used by another program on this machine; give a free one" in done.stderr
    assert "Traceback" not in done.stderr
