"""A disk that takes no more, at every command: one line, exit code 2, and what was whole stays whole."""

from __future__ import annotations

import contextlib
import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Outcome, run_here
from containers import one_of_each

LIMITS = (0, 300, 3_000)  # bytes a file may have: which write fails first depends on it
_QUIET = ("--trainer.enable_progress_bar", "false")
_DRAWN = ("--seeds", "0-7", "--descriptor", "Pixels", "--threshold", "0.9")


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Lets no file grow beyond a size; the system's answer is an OSError, as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def told(done: Outcome) -> str:
    """The one line of the mistake, after warnings of what is not kept, such as features."""
    *warnings, last = done.err.splitlines()
    assert done.code == 2, done
    assert all(line.startswith("repro: warning: ") for line in warnings), done
    assert last.startswith("repro: error: "), done
    return last


@pytest.fixture(scope="module")
def systems(trained: Path) -> Path:
    """The workplace with two runs, a bank of each, and a released file."""
    assert run_here("fit", "--config", "tiny.yaml", "--name", "other", "--model.seed", "1").code == 0
    for name in ("tiny", "other"):
        done = run_here("predict", "--ckpt_path", f"runs/{name}", "--seeds", "0-7", "--output", f"bank_{name}")
        assert done.code == 0, done
    one_of_each(trained)["edm"][0].rename(trained / "released.pkl")
    return trained


BANKS = ("bank_tiny", "bank_other", "--descriptor", "Pixels")
COMMANDS = {
    "fit": ("fit", "--config", "tiny.yaml", "--output", "OUT"),
    "predict": ("predict", "--ckpt_path", "runs/tiny", "--seeds", "0-7", "--shard_size", "2", "--output", "OUT"),
    "compare": ("compare", *BANKS, "--output", "OUT"),
    "a report": ("compare", *BANKS, "--output", "OUT", "--report", "OUT.html"),
    "encode": ("encode", "runs/tiny", "runs/other", "--data", "Digits", "--images", "20", "--output", "OUT"),
    "import": ("import", "released.pkl", "--output", "OUT"),
    "study": ("study", "similarity", "runs/tiny", "runs/other", *_DRAWN, "--output", "OUT"),
    "new": ("new", "my-models", "--output", "OUT"),
}


@pytest.mark.parametrize(
    ("what", "limit"), [(what, limit) for what in COMMANDS for limit in (LIMITS if what != "study" else LIMITS[1:2])]
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    systems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, limit: int
) -> None:
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    words = [word.replace("OUT", str(tmp_path / "out")) for word in COMMANDS[what]]
    before = files(systems)
    with full_disk(limit):
        done = run_here(*words)
    assert limit or done.code, done
    if done.code:
        assert "cannot write" in told(done), done
    assert not list(tmp_path.rglob("*.part")), done
    assert files(systems) == before  # nothing but its own folder was touched
    if done.code:
        again = run_here(*words)
        assert again.code == 0, (done, again)


def test_a_checkpoint_that_was_whole_stays_so(systems: Path) -> None:
    words = ("fit", "--ckpt_path", "runs/other", "--trainer.max_steps")
    before = {name: digest for name, digest in files(systems / "runs" / "other").items() if name.endswith(".ckpt")}
    with full_disk(3_000):
        assert "cannot write" in told(run_here(*words, "6"))
    now = files(systems / "runs" / "other")
    assert {name: now.get(name) for name in before} == before
    assert run_here(*words, "6").code == 0


@pytest.mark.parametrize("place", ["below a file", "where nobody may write"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_place_that_takes_no_folder_is_one_line(systems: Path, tmp_path: Path, what: str, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    out = {"below a file": str(tmp_path / "file" / "out"), "where nobody may write": "/sys/repro"}[place]
    before = files(systems)
    mistake = told(run_here(*(word.replace("OUT", out) for word in COMMANDS[what])))
    assert out.removesuffix("/out") in mistake
    assert (tmp_path / "file").read_text() == "mine"
    assert files(systems) == before
