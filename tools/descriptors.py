#!/usr/bin/env python
"""Trains, measures and writes one of the small descriptors that ship with the package.

    tools/descriptors.py digits                               # 4 minutes on one core
    tools/descriptors.py cifar                                # 15 to 20 minutes on one core; downloads CIFAR-10
    tools/descriptors.py cifar --train A.tar --unseen B.tar   # on images from elsewhere
    tools/descriptors.py cifar --run RUN ...                  # only measures and writes a run of configs/sscd_*.yaml

It writes ``sscd_NAME.safetensors`` (weights in half precision, settings) and ``sscd_NAME.json`` (what it was trained
on and with, and what it finds beside centred pixels on unseen images) into ``repro/descriptors/weights``. The default
threshold is the smallest multiple of 0.01, at least the 0.6 of SSCD, that at most 1 of 1,000 unrelated pairs exceeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from repro.analysis.copy_detection import detect_copies
from repro.checkpoints.native import read_checkpoint
from repro.cli.main import main as repro
from repro.descriptors import small
from repro.errors import UserError
from repro.files import write_text
from repro.registry import build
from repro.studies.descriptors import DIGITS_HELD_OUT

CONFIGS = {"digits": "configs/sscd_digits.yaml", "cifar": "configs/sscd_cifar_small.yaml"}
QUERIES, REFERENCES = 500, 5_000


def trained(name: str, archive: str | None) -> Path:
    run = Path("runs") / f"sscd_{name}"
    words = ["fit", "--config", str(Path(__file__).parents[1] / CONFIGS[name]), "--output", str(run)]
    if archive:
        words += ["--data", "ImageArchive", "--data.path", archive, "--data.holdout", "0"]
    code = repro(words)
    if code:
        raise SystemExit(code)
    return run


def unseen(name: str, archive: str | None) -> tuple[str, Tensor]:
    if archive:
        return Path(archive).name, build("data", "ImageArchive", path=archive, subset=REFERENCES).images()
    if name == "digits":
        return "Digits, held out", build("data", "Digits", holdout=DIGITS_HELD_OUT).held_out()[0]
    return "CIFAR10, test", build("data", "CIFAR10", split="test", subset=REFERENCES).images()


def record_of_training(run: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(run)
    record = checkpoint["repro"]
    data = record["data"]
    data["args"] = {
        key: Path(value).name if key in ("path", "root") and value else value for key, value in data["args"].items()
    }
    return {
        "model": record["model"],
        "data": data,
        "data_fingerprint": record["data_fingerprint"],
        "steps": checkpoint["global_step"],
        "images_seen": record["images_seen"],
        "torch": version("torch"),
        "timm": version("timm"),
    }


def threshold_of(descriptor: small.SmallSSCD, images: Tensor) -> float:
    strict = detect_copies(descriptor, images, 1, ["blur"]).strict_threshold
    return max(0.6, math.ceil(strict * 100) / 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=small.SHIPPED)
    parser.add_argument("--run", type=Path, help="a finished run; trained anew when left out")
    parser.add_argument("--train", help="folder or archive of images to train on")
    parser.add_argument("--unseen", help="folder or archive of images to measure on")
    options = parser.parse_args()
    try:
        run = options.run or trained(options.name, options.train)
        source, images = unseen(options.name, options.unseen)
        file = small.shipped_file(options.name)
        file.parent.mkdir(exist_ok=True)
        small.SmallSSCD(str(run)).save(file)
        small.SmallSSCD(options.name).save(file, threshold_of(small.SmallSSCD(options.name), images))
        systems = [small.SmallSSCD(options.name), build("descriptors", "Pixels")]
        found = [detect_copies(each, images, min(QUERIES, len(images))) for each in systems]
        record = {
            "config": CONFIGS[options.name],
            "training": record_of_training(run),
            "evaluation": {"images": source, "rows": [row for each in found for row in each.rows()]},
        }
        write_text(file.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    for each in found:
        row = each.rows()[-1]
        print(
            f"{each.descriptor}: micro-AP {row['micro_ap']:.3f}; above {each.threshold:.2f}: {row['recall']:.3f} of "
            f"the copies, {each.false_positive_rate:.1e} of unrelated pairs"
        )
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
