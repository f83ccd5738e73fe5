"""One job at work, on whichever machine: its settings, log and outcome go to the study's folder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from repro.errors import UserError
from repro.files import make_folder, say, write_text
from repro.studies.jobs import Job, file_of, is_done, remaining

__all__ = ["Subprocess", "check_finished", "fail", "run_job"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_STOPPED = (130, 138, 143)  # by SIGINT, SIGUSR1, SIGTERM: somebody wants no further attempt now


def run_job(job: Job, folder: Path, command: Callable[[list[str]], int], retries: int = 0) -> bool:
    """Runs one job, unless it is done, and says in the study's folder how it ended.

    While it runs no other process runs it: a second one waits, and finds that it is done.

    Args:
        job: The job.
        folder: The study's folder.
        command: Runs the words after ``repro`` and returns the exit code.
        retries: How often to try again after a failure; what a signal stopped is not tried again.

    Returns:
        Whether it is done.
    """
    log = file_of(folder, job, "log")
    make_folder(log.parent)
    with _alone(file_of(folder, job, "lock")):
        file_of(folder, job, "failed").unlink(missing_ok=True)
        for attempt in range(1, retries + 2):
            if is_done(job, folder):
                return True
            since = time.monotonic()
            with open(log, "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                code = _run(command, job.words(folder))
            if code == 0:
                file_of(folder, job, "failed").unlink(missing_ok=True)
                write_text(file_of(folder, job, "done"), f"{time.monotonic() - since:.1f} s\n")
                return True
            times = "" if attempt == 1 else f"{attempt} times: "
            fail(job, folder, times + _last_line(log))
            if code in _STOPPED:
                break
    return False


def _run(command: Callable[[list[str]], int], words: list[str]) -> int:
    say(" ".join(["$ repro", *words]))
    try:
        return command(words)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process and its commands; where the file system has no locks, runs without."""
    with open(path, "a") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            os.set_inheritable(file.fileno(), True)  # a command that outlives this process keeps the lock
        yield


class Subprocess:
    """Runs ``repro`` commands each in a process of its own, which ends when this one does."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, words: list[str]) -> int:
        command = [sys.executable, "-m", "repro", *words]
        self._process = subprocess.Popen(
            command, stdout=sys.stdout, stderr=sys.stderr, close_fds=False, preexec_fn=_in_child
        )
        return self._process.wait()

    def stop(self) -> None:
        """Asks the command that runs to save its state and leave, and waits until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _in_child() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # clusters send it to all processes; the parent answers it
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def fail(job: Job, folder: Path, reason: str) -> None:
    """Writes down why a job failed."""
    write_text(file_of(folder, job, "failed"), reason + "\n")


def check_finished(jobs: Sequence[Job], folder: Path) -> None:
    """Tells of every job that is not done although no job is left to run.

    Raises:
        UserError: naming the jobs that failed, each with the last line of its log, and how many wait for them.
    """
    left = remaining(jobs, folder)
    failed = [job for job in left if file_of(folder, job, "failed").is_file()]
    if not left:
        return
    reasons = [
        f"job {job.name} failed: {file_of(folder, job, 'failed').read_text().strip()} "
        f"(log: {file_of(folder, job, 'log')})"
        for job in failed
    ]
    waiting = f"; {len(left) - len(failed)} more wait for them" if len(left) > len(failed) else ""
    raise UserError(f"{'; '.join(reasons)}{waiting}; run the same command again to go on")
