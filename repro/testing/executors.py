"""Laws that every executor obeys; a package that registers an executor runs them on it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repro.errors import UserError
from repro.files import say
from repro.studies.executors import Executor
from repro.studies.jobs import Job, remaining

__all__ = ["check_executor", "check_failure", "check_order"]


def check_executor(build: Callable[[], Executor], folder: Path) -> None:
    """Runs every law on an executor of this machine.

    Args:
        build: Makes the executor anew.
        folder: An empty folder that its jobs may write into.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    for law in (check_order, check_failure):
        own = folder / law.__name__
        own.mkdir(parents=True)
        law(build(), own)


def check_order(executor: Executor, folder: Path) -> None:
    """Checks that each job runs once, after those that it needs, and that what is done is not run again."""
    jobs = _jobs("write")
    for _ in range(2):
        executor.run(jobs, folder, write_or_fail)
    names = _note(folder)
    assert sorted(names) == sorted(job.name for job in jobs), f"jobs ran as {names}; each has to run once"
    for job in jobs:
        early = [need for need in job.after if names.index(need) > names.index(job.name)]
        assert not early, f"{job.name} ran before {', '.join(early)}, which it needs"
    assert not remaining(jobs, folder), "jobs that have ended well are not noted as done"


def check_failure(executor: Executor, folder: Path) -> None:
    """Checks that a failed job is told with its last line, holds up only those that need it, and can be mended."""
    message = ""
    try:
        executor.run(_jobs("fail"), folder, write_or_fail)
    except UserError as error:
        message = str(error)
    assert message, "a job failed, and no UserError says so"
    assert "job draw failed: " in message, f"the job that failed is not named: {message}"
    assert "no luck" in message, f"the last line of its log is not told: {message}"
    assert sorted(_note(folder)) == ["fit", "other"], f"ran {_note(folder)}; only what needs draw has to wait"
    executor.run(_jobs("write"), folder, write_or_fail)
    assert sorted(_note(folder)) == ["draw", "fit", "other", "score"], "the study does not go on once draw is mended"


def write_or_fail(words: list[str]) -> int:
    """Stands for ``repro``: notes that a job ran, or fails as a user's mistake does."""
    kind, _, path = words
    if kind == "fail":
        say("repro: error: no luck", aside=True)
        return 2
    with open(Path(path).parent.parent / "note.txt", "a", encoding="utf-8") as file:
        file.write(f"{Path(path).stem}\n")
    return 0


def _jobs(draw: str) -> list[Job]:
    return [
        Job("fit", "write", {"output": "x"}),
        Job("draw", draw, {"output": "x"}, after=("fit",)),
        Job("score", "write", {"output": "x"}, after=("draw", "fit")),
        Job("other", "write", {"output": "x"}),
    ]


def _note(folder: Path) -> list[str]:
    return (folder / "note.txt").read_text(encoding="utf-8").split()
