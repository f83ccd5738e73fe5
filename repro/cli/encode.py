"""``repro encode``: the noises that models give to the images of a data set, and how alike they are."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from repro.analysis.encodings import likeness_of_noises, summary_of_noises
from repro.checkpoints.loading import load_model
from repro.cli.objects import build
from repro.cli.parser import Parser, split
from repro.data.base import ImageData
from repro.drawing.encoding import encode
from repro.errors import UserError
from repro.files import csv_text, make_folder, say, write_text, write_whole
from repro.models.denoising import Denoising
from repro.records import record_of
from repro.samplers.base import Sampler

__all__ = ["run"]


def _parser() -> Parser:
    parser = Parser(
        prog="repro encode",
        usage="repro encode CKPT [CKPT ...] --data DATA [options]",
        description="Walks images back to the noises that models draw them from. Writes the noises; says how well they "
        "give the images again, how Gaussian they are, and how alike those of two models are.",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument("systems", nargs="*", type=str, metavar="CKPT", help="Runs, checkpoints or released files.")
    parser.add_argument("--data", type=ImageData | None, help="The images (repro plugins data).")
    parser.add_argument("--images", type=int, default=1000, help="How many of them, the first ones.")
    parser.add_argument(
        "--held_out", type=bool, default=False, help="Take the images that --data.holdout keeps from training."
    )
    parser.add_argument("--sampler", type=Sampler | None, help="Walks back and draws in place of the models' own.")
    parser.add_argument("--threshold", type=float, default=0.5, help="Cosine above which two noises are the same.")
    parser.add_argument(
        "--bits", type=bool, default=False, help="Also bits per dimension of the images, with its standard error."
    )
    parser.add_argument("--output", type=str, default="runs/encode", help="Folder for noises and tables.")
    return parser


def _images(data: ImageData, held_out: bool, count: int) -> tuple[Tensor, Tensor | None]:
    if count < 20:
        raise UserError(f"images is {count}; give at least 20, for the statistics of the noises")
    if held_out and not data.holdout:
        raise UserError("nothing is held out; give --data.holdout N, or leave out --held_out")
    images, labels = data.held_out() if held_out else (data.images(), data.labels())
    if len(images) < count:
        raise UserError(f"images is {count}, but the data have {len(images)}; give --images {len(images)}")
    return images[:count], labels[:count] if data.num_classes else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}


def _names(paths: list[str]) -> list[str]:
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [f"{name}-{number}" for number, name in enumerate(names, 1)]


def run(command: str, arguments: list[str]) -> int:
    """Encodes the images of a data set under each model, and writes noises, statistics and likeness.

    Args:
        command: ``encode``.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    config = _parser().parse_command(split(arguments))
    if not config["systems"]:
        raise UserError("name a run or checkpoint: repro encode runs/NAME --data Digits")
    if config["data"] is None:
        raise UserError("name the images: --data Digits (or ImageArchive with --data.path)")
    data, sampler = build(config["data"], "data"), build(config["sampler"], "sampler")
    names, models = _names(config["systems"]), [load_model(path) for path in config["systems"]]
    for name, model in zip(names, models, strict=True):
        if not isinstance(model, Denoising):
            raise UserError(f"{name} is a {type(model).__name__}, which draws in one pass: it has no way back")
        (sampler or model.sampler).check_reversible()
        model.check_drawing(sampler)
    images, labels = _images(data, config["held_out"], config["images"])
    folder = make_folder(config["output"])
    noises: dict[str, Tensor] = {}
    rows = []
    for name, model in zip(names, models, strict=True):
        classes = labels if model.num_classes and not model.takes_no_labels else None
        noises[name] = encode(model, images, classes, sampler)
        with write_whole(folder / f"{name}.npy") as file:
            np.save(file, noises[name].numpy())
        summary = summary_of_noises(model, images, noises[name], classes, sampler, config["bits"])
        rows.append({"system": name, **_rounded(summary)})
    write_text(folder / "encoding.csv", csv_text(rows))
    pairs = [
        {"systems": f"{one} and {other}"}
        | _rounded(likeness_of_noises(noises[one], noises[other], config["threshold"]))
        for one, other in combinations(names, 2)
    ]
    if pairs:
        write_text(folder / "pairs.csv", csv_text(pairs))
    record = {"data": record_of(data), "held_out": config["held_out"], "images": len(images), "systems": names}
    write_text(folder / "encoding.json", json.dumps(record, indent=1) + "\n")
    for row in [*rows, *pairs]:
        say("  ".join(f"{key} {value}" for key, value in row.items()))
    say(f"noises and tables: {folder}")
    return 0
