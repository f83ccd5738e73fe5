"""A SLURM of two nodes and a Ray cluster of two raylets on this machine, for as long as a test needs them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=cred_expire=10
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
JobRequeue=1
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=8000 State=UNKNOWN
PartitionName=tests Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count):
    with_sockets = [socket.socket() for _ in range(count)]
    for each in with_sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in with_sockets]
    for each in with_sockets:
        each.close()
    return ports


def start_slurm(home):
    """Starts the daemons; returns their process ids after all nodes are idle. The caller ends them."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        pytest.skip(f"the SLURM of this test needs its programs: apt-get install {' '.join(missing)}")
    if os.getuid() != 0:
        pytest.skip("the SLURM of this test starts its daemons as root")
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        os.makedirs("/run/munge", exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", shutil.which("munged")], check=True)
    host, (port, first, second) = socket.gethostname().partition(".")[0], free_ports(3)
    (home / "state").mkdir(parents=True)
    config = home / "slurm.conf"
    config.write_text(CONFIG.format(home=home, host=host, user="root", port=port, first=first, second=second))
    os.environ["SLURM_CONF"] = str(config)
    daemons = [["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    running = [
        subprocess.Popen([*words, "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in daemons
    ]
    for _ in range(150):
        shown = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.split()
        if shown == ["idle"]:
            return running
        time.sleep(0.2)
    stop(running)
    pytest.fail(f"SLURM did not start: {(home / 'slurmctld.log').read_text()[-2000:]}")


def stop(running):
    for each in reversed(running):
        each.terminate()
    for each in running:
        each.wait(20)


def start_ray(home):
    """Starts a head and a second raylet; returns the address."""
    pytest.importorskip("ray", reason="the Ray of this test needs it: pip install 'repro[cluster]'")
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else a head asks for a token that later raylets do not send
    ray = os.path.join(os.path.dirname(sys.executable), "ray")
    command = [ray] if os.path.exists(ray) else [sys.executable, "-m", "ray.scripts.scripts"]
    (port,) = free_ports(1)
    common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats"]
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={home}"]
    for words in (head, [f"--address=127.0.0.1:{port}"]):
        subprocess.run([*command, "start", *words, *common], check=True, capture_output=True)
    return f"127.0.0.1:{port}"


def stop_ray(address):
    """Ends the processes of this cluster, and of no other."""
    port = address.rpartition(":")[2]
    for line in subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines():
        number, _, words = line.strip().partition(" ")
        if f":{port}" in words or f"--gcs_server_port={port}" in words:
            os.kill(int(number), 15)
