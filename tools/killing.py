"""Kills or signals commands at random moments: what was whole stays so, and the same command ends as if undisturbed.

This process imports what an undisturbed command had imported by its end, and forks a child for each command, so that a
kill costs no start. A child is a session of its own; the kill reaches its children too. A signal (``--signals``) is one
of those that ask a program to stop, and must give the exit code that a shell expects.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

CONFIG = """
model:
  class_path: Diffusion
  init_args:
    network: {class_path: MLP, init_args: {width: 16, depth: 1}}
    kernel: EDM
    parameterization: EDMPreconditioning
    sampler: {class_path: Heun, init_args: {steps: 2}}
data: {class_path: Digits, init_args: {batch_size: 8, subset: 64, holdout: 16}}
trainer:
  max_steps: 60
  accelerator: cpu
  enable_progress_bar: false
  callbacks: [{class_path: RunCheckpoint, init_args: {every_n_steps: 10}}]
"""


@dataclass(frozen=True)
class Kind:
    """A command that can be killed.

    Attributes:
        words: The command line, run in a folder of its own, the same each time.
        outcome: What identifies the end of it, in that folder.
        kept: Patterns of files that must not change or vanish once they are there.
    """

    words: tuple[str, ...]
    outcome: Callable[[Path], object]
    kept: tuple[str, ...] = ()


def _tensors(value: object) -> list[tuple[str, bytes]]:
    """All tensors in nested plain data, with where they stand."""
    if isinstance(value, torch.Tensor):
        return [("", value.detach().contiguous().numpy().tobytes())]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [(f"{key}.{where}", data) for key, inner in items for where, data in _tensors(inner)]


def _checkpoint(folder: Path) -> object:
    from repro.checkpoints.native import read_checkpoint

    newest = max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return hashlib.sha256(repr(sorted(_tensors(read_checkpoint(newest)))).encode()).hexdigest(), newest.name


def _bank(folder: Path) -> object:
    from repro.banks import Bank

    bank = Bank.open(folder / "bank")
    return bank.fingerprint, bank.complete


def _texts(folder: Path) -> object:
    out = next(path for path in (folder / "out", folder / "study") if path.is_dir())
    tables = {path.name: path.read_text() for path in sorted(out.rglob("*.csv")) if path.name != _TIMED}
    if not tables:
        raise ValueError(f"no table is in {out}")
    return tables


_STUDY = ("--seeds", "0-19", "--descriptor", "Pixels", "--threshold", "0.9", "--workers", "1")
_ASK_TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LONGEST = 300.0
_TIMED = "systems.csv"  # says how long drawing took


def kinds(root: Path) -> dict[str, Kind]:
    """Every kind of command, on files made here once."""
    from containers import one_of_each

    config = root / "config.yaml"
    config.write_text(CONFIG)
    for name, seed in (("one", "0"), ("two", "1")):
        _must(root, "fit", "--config", str(config), "--output", name, "--model.seed", seed)
        _must(root, "predict", "--ckpt_path", name, "--seeds", "0-19", "--output", f"bank_{name}")
    one, two = str(root / "one"), str(root / "two")
    banks = (str(root / "bank_one"), str(root / "bank_two"))
    released = one_of_each(root)["edm"][0]
    return {
        "fit": Kind(("fit", "--config", str(config), "--output", "run"), _checkpoint),
        "predict": Kind(
            ("predict", "--ckpt_path", one, "--seeds", "0-79", "--shard_size", "4", "--output", "bank"),
            _bank,
            ("bank/images-*.npy",),
        ),
        "compare": Kind(("compare", *banks, "--descriptor", "Pixels", "--output", "out"), _texts),
        "test": Kind(("test", "--ckpt_path", one, "--seeds", "0-39", "--descriptor", "Pixels"), lambda folder: None),
        "study": Kind(
            ("study", "similarity", one, two, *_STUDY, "--output", "study"),
            _texts,
            ("study/banks/*/images-*.npy", "study/jobs/*.done"),
        ),
        "import": Kind(("import", str(released), "--output", "run"), _checkpoint),
    }


def _fork(folder: Path, words: tuple[str, ...], imported: Path | None = None) -> int:
    """Starts a command in a child process, in a folder; gives the number of the process.

    Args:
        folder: Its folder.
        words: Its command line.
        imported: Where to write names of the modules that it had imported by its end, if anywhere.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from repro.cli.main import main

        code = main(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 71
    except BaseException:
        traceback.print_exc()
    finally:
        if imported is not None:
            imported.write_text("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _must(folder: Path, *words: str) -> None:
    imported = folder / "imported"
    _, status = os.waitpid(_fork(folder, words, imported), 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: {(folder / 'log').read_text()[-2000:]}")
    for name in imported.read_text().splitlines():
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # modules that only some others may import
                importlib.import_module(name)
    imported.unlink()


def _whole(folder: Path, patterns: tuple[str, ...]) -> dict[Path, str]:
    files = (path for pattern in patterns for path in folder.glob(pattern))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _kill(child: int) -> str:
    """Ends a command and its children at once; nothing is wrong with that."""
    try:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it was faster than the kill
    return ""


def _ask(child: int, number: signal.Signals) -> str:
    """Asks a command to stop and waits for it; what is wrong with its exit code, or nothing."""
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return ""
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end:
        try:
            child_now, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            return ""
        if child_now:
            code = os.waitstatus_to_exitcode(status)
            known = (0, 128 + number, -number)  # the last before and after its own handlers: a shell says the same
            return "" if code in known else f"exit {code} after {number.name}"
        time.sleep(0.01)
    _kill(child)
    return f"still there {_LONGEST:g} s after {number.name}"


def trial(kind: Kind, seed: int, folder: Path, length: float, expected: object, signals: bool) -> str:
    """Kills a command one to three times, or asks it to stop, and lets it go on; what is wrong, or nothing."""
    rng = random.Random(seed)
    kept: dict[Path, str] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        child = _fork(folder, kind.words)
        end = time.monotonic() + rng.uniform(0, 1.1 * length)
        while time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        if fault := _ask(child, rng.choice(_ASK_TO_STOP)) if signals else _kill(child):
            return f"{fault}: {(folder / 'log').read_text()[-600:]}"
        now = _whole(folder, kind.kept)
        if lost := [path.name for path, digest in kept.items() if now.get(path) != digest]:
            return f"lost or changed: {lost}"
        kept = now
    _, status = os.waitpid(_fork(folder, kind.words), 0)
    log = (folder / "log").read_text()
    if status and not ((kind.words[0] in ("fit", "import") and "is not empty" in log) or "finished" in log):
        return f"exit {status >> 8}: {log[-600:]}"
    if parts := [str(path.relative_to(folder)) for path in folder.rglob(".*.part")]:
        return f"parts left: {parts}"
    end = kind.outcome(folder)
    if end != expected:
        return "another end"
    return ""


def main() -> int:
    """Runs the trials and prints how many commands of each kind ended as they should; 1 when one did not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="How many commands are killed, one to three times each.")
    parser.add_argument("--first", type=int, default=0, help="Seed of the first one.")
    parser.add_argument("--minutes", type=float, default=1e9, help="Begin no trial after so long.")
    parser.add_argument("--kinds", nargs="*", default=[], help="Only these kinds.")
    parser.add_argument("--signals", action="store_true", help="Ask to stop (SIGTERM, SIGINT, SIGUSR1) instead.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kills") as root:
        os.environ["REPRO_CACHE"] = str(Path(root) / "cache")
        wrong, right = 0, Counter()
        known = {name: kind for name, kind in kinds(Path(root)).items() if not options.kinds or name in options.kinds}
        ends = {}
        for name, kind in known.items():
            for time_of in ("first", "second"):  # the first one is slowed by its imports
                folder = Path(root) / f"{time_of}_{name}"
                folder.mkdir()
                begin = time.monotonic()
                _must(folder, *kind.words)
                ends[name] = (time.monotonic() - begin, kind.outcome(folder))
        often = [1 / seconds for seconds, _ in ends.values()]  # as much time for each kind
        last = time.monotonic() + 60 * options.minutes
        print("seconds of each, undisturbed:", {name: round(end[0], 1) for name, end in ends.items()}, flush=True)
        for seed in range(options.first, options.first + options.count):
            if time.monotonic() > last:
                break
            name = random.Random(seed).choices(list(known), often)[0]
            folder = Path(root) / "trial"
            folder.mkdir()
            if fault := trial(known[name], seed, folder, *ends[name], options.signals):
                wrong += 1
                print(f"seed {seed}: {name}: {fault}", flush=True)
            else:
                right[name] += 1
            shutil.rmtree(folder)
    print(json.dumps({"went on to the same end": right, "did not": wrong}))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
