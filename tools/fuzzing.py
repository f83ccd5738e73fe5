"""A fuzzer: mutated files of every kind that the program reads must be read the same, or refused in one line.

Counted are executed code, tracebacks, hangs of more than ten seconds, crashes of the process, and numbers that changed
without a word in files that carry checksums (banks, checkpoints, features, kept images). Everything runs in one worker
process for speed; a second one watches it, and starts it again after a hang or a crash.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LIMIT = 10
MEMORY = 24 << 30
CONFIG = """
model:
  class_path: Diffusion
  init_args:
    network: {class_path: MLP, init_args: {width: 16, depth: 1}}
    kernel: EDM
    parameterization: EDMPreconditioning
    sampler: {class_path: Heun, init_args: {steps: 2}}
data: {class_path: Digits, init_args: {batch_size: 8, subset: 64}}
trainer: {max_steps: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, logger: false}
"""


class Hang(BaseException):
    """Raised by the alarm."""


class Executed(BaseException):
    """Raised where a file made the program start, reach or write something."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it lies, how it is read, and whether a changed number must be noticed.

    Attributes:
        template: File or folder that is copied before each mutation.
        target: The file in the copy that is mutated, relative to it; "" is the copy itself.
        read: Reads the copy and returns what identifies its content, or None.
        checked: Whether content that differs from that of the template is a find.
    """

    template: Path
    target: str
    read: Callable[[Path], object]
    checked: bool = False


def command(*words: str) -> int:
    """Runs the program in this process; what it does not tell as one line of error is a find.

    Raises:
        UserError: the program refused.
        RuntimeError: it ended in another way than a user should see.
    """
    from repro.cli.main import main
    from repro.errors import UserError

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(words))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    said = err.getvalue().strip()
    if "Traceback" in said or code not in (0, 2):
        raise RuntimeError(f"exit {code}: {said[-1500:]}")
    if code == 2:
        if not said.splitlines()[-1].startswith("repro: error: "):
            raise RuntimeError(f"no line of error: {said[-300:]}")
        raise UserError(said.splitlines()[-1])
    return code


def templates(root: Path) -> dict[str, Kind]:
    """Builds one sound file of every kind."""
    import torch
    from containers import one_of_each
    from image_files import encoded, pictures, write_tar, write_zip

    import repro
    from repro.banks import Bank, BankWriter
    from repro.data import ImageArchive, ImageArray
    from repro.descriptors import Pixels
    from repro.descriptors.base import cached_features
    from repro.inverse.operators import MaskFile
    from repro.released import import_file

    config = root / "config.yaml"
    config.write_text(CONFIG)
    run = root / "run"
    assert command("fit", "--config", str(config), "--output", str(run)) == 0
    checkpoint = next(run.glob("checkpoints/*.ckpt"))
    bank = root / "bank"
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8))
    writer = BankWriter(bank, {"seeds": range(8), "image_shape": (1, 8, 8), "labels": {"num_classes": 3}}, 4)
    for seeds in writer.missing():
        writer.write(seeds, images[seeds], torch.tensor(seeds) % 3)

    def opened(path: Path) -> object:
        held = Bank.open(path)
        return held.fingerprint, json.dumps(held.manifest.record(), sort_keys=True)

    features = root / "features"
    features.mkdir()

    def described(path: Path) -> object:
        return cached_features(images, "0" * 64, Pixels(), path).numpy().tobytes()

    described(features)
    files = {f"{'cat' if i % 2 else 'dog'}/{i}.png": encoded(image) for i, image in enumerate(pictures(6))}
    table = json.dumps({"labels": [[name, i % 2] for i, name in enumerate(files)]}).encode()
    folder = root / "folder"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "dataset.json").write_bytes(table)

    def archived(path: Path) -> None:
        ImageArchive(str(path), cache=False).images()

    write_zip(root / "set.zip", files | {"dataset.json": table})
    write_tar(root / "set.tar", files)
    write_tar(root / "set.tgz", files, "w:gz")
    for suffix in (".bmp", ".gif", ".webp", ".tif", ".ppm"):
        write_zip(root / f"set{suffix}.zip", {f"a{suffix}": encoded(pictures(1)[0], suffix)}, zipfile.ZIP_STORED)
    np.save(root / "set.npy", pictures(6, channels=5))
    np.savez(root / "set.npz", images=pictures(6), labels=np.arange(6))
    (root / "mask.png").write_bytes(encoded(np.eye(8, dtype=np.uint8) * 255))

    def arrayed(path: Path) -> None:
        ImageArray(str(path), channels="last").images()

    def masked(path: Path) -> None:
        MaskFile(str(path)).mask(8, 8)

    def loaded(path: Path) -> object:
        return repro.load(path).fingerprint()

    def fitted(path: Path) -> None:
        with contextlib.chdir(path.parent):
            command("fit", "--config", str(path), "--output", str(path.parent / "out"))

    def resumed(path: Path) -> None:
        with contextlib.chdir(path.parent):
            command("fit", "--ckpt_path", str(path), "--trainer.max_steps", "3")

    def compared(path: Path) -> None:
        with contextlib.chdir(path.parent):
            command("compare", str(path), str(bank), "--descriptor", "Pixels", "--output", str(path.parent / "out"))

    kinds = {
        "config": Kind(config, "", fitted),
        "run config": Kind(run, "config.yaml", resumed),
        "run record": Kind(run, "run.json", resumed),
        "checkpoint": Kind(checkpoint, "", loaded, checked=True),
        "manifest": Kind(bank, "manifest.json", opened, checked=True),
        "images": Kind(bank, "images-00000001.npy", opened, checked=True),
        "labels": Kind(bank, "labels-00000000.npy", opened, checked=True),
        "compared manifest": Kind(bank, "manifest.json", compared),
        "features": Kind(features, next(features.iterdir()).name, described, checked=True),
        "image": Kind(folder, "cat/1.png", archived),
        "label file": Kind(folder, "dataset.json", archived),
        "mask": Kind(root / "mask.png", "", masked),
    }
    for name in (
        "set.zip",
        "set.tar",
        "set.tgz",
        "set.bmp.zip",
        "set.gif.zip",
        "set.webp.zip",
        "set.tif.zip",
        "set.ppm.zip",
    ):
        kinds[name] = Kind(root / name, "", archived)
    for name in ("set.npy", "set.npz"):
        kinds[name] = Kind(root / name, "", arrayed)
    others = root / "released"
    others.mkdir()
    for name, (path, options) in one_of_each(others).items():

        def imported(path: Path, name: str = name, options: dict[str, object] = options) -> None:
            import_file(path, format=name, **options)

        kinds[f"released {name}"] = Kind(path, "", imported)
    folder = others / "ddpm"
    for part in ("unet/config.json", "scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors"):
        kinds[f"released {Path(part).stem}"] = Kind(folder, part, import_file)
    del kinds["released diffusers"]  # whose weights need the settings beside them
    return kinds


_TOKENS = (
    b"-1", b"0", b"1e999", b"nan", b".nan", b"99999999999999999999", b"null", b"true", b"[]", b"{}", b'""', b"40000",
    b"[" * 300 + b"]" * 300, b"&a [*a]", b"!!python/object/apply:os.system ['touch executed']", b"\xff\xfe", b"-0.5",
    b"\x1b[31m", b"../../x",
    b"{class_path: subprocess.Popen, init_args: {args: [touch, executed]}}", b"http://127.0.0.1:9/x", b"/etc/passwd",
)  # fmt: skip
_PICKLE = b"cposix\nsystem\n(S'touch executed'\ntR."


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes."""
    if data[:2] == b"PK" and rng.random() < 0.5:
        return _member_mutated(data, rng)
    changed = bytearray(data)
    text = b"\0" not in data[:512]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed)) if changed else 0
        what = rng.randrange(9)
        if what <= 1 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            changed = changed[:at]
        elif what == 3:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif what == 4:
            del changed[at : at + rng.randrange(1, 64)]
        elif what == 5:
            changed[at : at + 8] = rng.choice((b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7))
        elif what == 6:
            changed += changed[at : at + 256]
        elif what == 7:
            changed[at:at] = rng.choice(_TOKENS) if text else _PICKLE
        elif text and (words := _words(bytes(changed))):
            first, last = rng.choice(words)
            changed[first:last] = rng.choice(_TOKENS)
    return bytes(changed)


def _words(data: bytes) -> list[tuple[int, int]]:
    import re

    return [found.span() for found in re.finditer(rb"[\w.+-]+", data)]


def _member_mutated(data: bytes, rng: random.Random) -> bytes:
    """A zip with one member changed and packed again, so that its own checksum holds."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(held, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutated(content, rng) if name == chosen else content)
    return held.getvalue()


@contextlib.contextmanager
def guarded(allowed: Path) -> Iterator[None]:
    """Stops what takes more than ten seconds."""

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)  # of the processor: the machine may be busy
    _AUDIT["allowed"] = (str(allowed), os.environ["REPRO_CACHE"], "/dev/", "/proc/", f"{tempfile.gettempdir()}/torch")
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _AUDIT["allowed"] = None


_AUDIT: dict[str, tuple[str, ...] | None] = {"allowed": None}
_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.getaddrinfo",
)


def audit(event: str, args: tuple[object, ...]) -> None:
    """Notices programs, connections and files opened for writing elsewhere, while a file is being read."""
    allowed = _AUDIT["allowed"]
    if allowed is None:
        return
    if event in _FORBIDDEN:
        raise Executed(f"{event} {args!r:.200}")
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wxa+"):
        path = os.path.abspath(args[0])
        if not path.startswith(allowed) and not path.endswith(".pyc"):
            raise Executed(f"opened {path} for writing")


def trial(kind: Kind, seed: int, work: Path, sound: object) -> tuple[str, str]:
    """One mutation: its outcome, and what to say about a find."""
    from repro.errors import UserError

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    copy = work / kind.template.name
    shutil.copytree(kind.template, copy) if kind.template.is_dir() else shutil.copy(kind.template, copy)
    target = copy / kind.target if kind.target else copy
    data = target.read_bytes()
    changed = mutated(data, random.Random(seed))
    target.write_bytes(changed)
    packed_again = data[:2] == b"PK" and not _is_same_archive(data, changed)
    with contextlib.chdir(work), warnings.catch_warnings(action="ignore"):
        try:
            with guarded(work):
                content = kind.read(copy)
        except UserError as error:
            return ("refused", "") if "\n" not in str(error) else ("traceback", f"several lines: {error}")
        except Hang:
            return "hang", f"more than {LIMIT} s"
        except Executed as error:
            return "executed", str(error)
        except BaseException:
            return "traceback", traceback.format_exc()[-1500:]
        finally:
            if (work / "executed").exists():
                return "executed", "a marker file"  # noqa: B012
    if kind.checked and content != sound and not packed_again:
        return "unseen", f"{content!r:.200}"
    return "read", ""


def _is_same_archive(old: bytes, new: bytes) -> bool:
    """False where a member was packed again with a checksum of its own: a forgery, which no checksum shows."""
    try:
        with zipfile.ZipFile(io.BytesIO(old)) as one, zipfile.ZipFile(io.BytesIO(new)) as other:
            return [i.CRC for i in one.infolist()] == [i.CRC for i in other.infolist()]
    except Exception:
        return True


def work(root: Path, first: int, count: int, chosen: list[str]) -> None:
    """Runs mutations and prints a line of JSON before and after each."""
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kinds = templates(root / "templates")
    kinds = {name: kind for name, kind in kinds.items() if not chosen or name in chosen}
    sound = {name: kind.read(kind.template) if kind.checked else None for name, kind in kinds.items()}
    sys.addaudithook(audit)
    names = list(kinds)
    for seed in range(first, first + count):
        name = names[seed % len(names)]
        print(json.dumps({"seed": seed, "kind": name}), flush=True)
        outcome, why = trial(kinds[name], seed, root / "work", sound[name])
        print(json.dumps({"seed": seed, "kind": name, "outcome": outcome, "why": why}), flush=True)


def main() -> int:
    """Watches the worker and prints the table; 1 when there was a find."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="How many mutations.")
    parser.add_argument("--first", type=int, default=0, help="Seed of the first one.")
    parser.add_argument("--kinds", nargs="*", default=[], help="Only these kinds.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Path(options.worker), options.first, options.count, options.kinds)
        return 0
    outcomes: Counter[tuple[str, str]] = Counter()
    seed, last = options.first, options.first + options.count
    while seed < last:
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            (Path(folder) / "templates").mkdir()
            seed = _watch(Path(folder), seed, last, options.kinds, outcomes)
    kinds = sorted({kind for kind, _ in outcomes})
    columns = ("read", "refused", "unseen", "traceback", "executed", "hang", "crash")
    print(f"{'':24}" + "".join(f"{column:>10}" for column in columns))
    for kind in kinds:
        print(f"{kind:24}" + "".join(f"{outcomes[kind, column]:>10}" for column in columns))
    totals = {column: sum(outcomes[kind, column] for kind in kinds) for column in columns}
    print(f"{'all':24}" + "".join(f"{totals[column]:>10}" for column in columns))
    return int(any(totals[column] for column in columns[2:]))


def _watch(folder: Path, seed: int, last: int, kinds: list[str], outcomes: Counter[tuple[str, str]]) -> int:
    """Reads what a worker says until it is done, dead or silent; gives the seed to go on with."""
    words = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--worker",
        str(folder),
        "--first",
        str(seed),
        "--count",
        str(last - seed),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "REPRO_CACHE": str(folder / "cache")}
    worker = subprocess.Popen(
        [*words, *(["--kinds", *kinds] if kinds else [])], stdout=subprocess.PIPE, text=True, env=environment
    )
    started: dict[str, object] = {}

    def too_long(*_: object) -> None:
        worker.kill()

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(300)
    for line in worker.stdout or ():
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        signal.alarm(12 * LIMIT)
        if "outcome" not in said:
            started = said
            continue
        started = {}
        outcomes[said["kind"], said["outcome"]] += 1
        seed = said["seed"] + 1
        if said["outcome"] not in ("read", "refused"):
            print(f"seed {said['seed']}: {said['kind']}: {said['outcome']}: {said['why']}", flush=True)
    code = worker.wait()
    signal.alarm(0)
    if started:
        outcome = "hang" if code == -signal.SIGKILL else "crash"
        print(f"seed {started['seed']}: {started['kind']}: {outcome} (exit {code})", flush=True)
        outcomes[str(started["kind"]), outcome] += 1
        seed = int(str(started["seed"])) + 1
    elif seed < last:
        raise SystemExit(f"the worker ended with {code}")
    return seed


if __name__ == "__main__":
    sys.exit(main())
