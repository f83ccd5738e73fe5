"""``repro encode``: the noises that models give to the images of a data set, and how alike they are."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.analysis.likelihood import bits_per_dimension
from repro.checkpoints.loading import load_model
from repro.cli.objects import build
from repro.cli.parser import Parser, split
from repro.data.base import ImageData
from repro.drawing.encoding import encode
from repro.errors import UserError
from repro.files import csv_text, make_folder, write_text, write_whole
from repro.images import to_float
from repro.metrics.functional.encoding import code_statistics, encoding_matches
from repro.metrics.functional.intervals import wilson_interval
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


def _row(
    name: str, model: Denoising, images: Tensor, labels: Tensor | None, noises: Tensor, config: Any
) -> dict[str, Any]:
    sampler = config["sampler"] or model.sampler
    with torch.no_grad():
        again = torch.cat(
            [
                sampler.sample(model.denoiser, part, classes)
                for part, classes in zip(noises.split(250), _split(labels, len(noises)), strict=True)
            ]
        )
    error = (again.float() - to_float(images)).square().flatten(1).mean(1).sqrt()
    statistics = code_statistics(noises)
    row = {
        "system": name,
        "n": len(images),
        "reconstruction_rms_median": f"{error.median():.4g}",
        "reconstruction_rms_max": f"{error.max():.4g}",
        "mean": f"{statistics.mean:.4f}",
        "variance": f"{statistics.variance:.4f}",
        "normal_dimensions": f"{statistics.normal:.3f}",
        "largest_correlation": f"{statistics.correlation:.3f}",
    }
    if config["bits"]:
        bits, _ = bits_per_dimension(model.denoiser, images, labels)
        row |= {
            "bits_per_dimension": f"{bits.mean():.4f}",
            "bits_standard_error": f"{bits.std() / len(bits) ** 0.5:.4f}",
        }
    return row


def _split(labels: Tensor | None, count: int) -> list[Tensor | None]:
    return [None] * -(-count // 250) if labels is None else list(labels.split(250))


def _pair(names: tuple[str, str], a: Tensor, b: Tensor, threshold: float) -> dict[str, Any]:
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    matches, chance = encoding_matches(a, b, threshold), encoding_matches(a, b.roll(1, 0), threshold)
    low, high = wilson_interval(int(matches.sum()), len(matches))
    return {
        "systems": " and ".join(names),
        "n": len(a),
        "threshold": threshold,
        "cosine_median": f"{cosine.median():.4f}",
        "distance_median": f"{(a - b).square().flatten(1).mean(1).sqrt().median():.4f}",
        "rate": f"{matches.double().mean():.4f}",
        "low": f"{low:.4f}",
        "high": f"{high:.4f}",
        "chance": f"{chance.double().mean():.4f}",
    }


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
    settings = {**config, "sampler": sampler}
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
        rows.append(_row(name, model, images, classes, noises[name], settings))
    write_text(folder / "encoding.csv", csv_text(rows))
    pairs = [_pair(two, noises[two[0]], noises[two[1]], config["threshold"]) for two in combinations(names, 2)]
    if pairs:
        write_text(folder / "pairs.csv", csv_text(pairs))
    record = {"data": record_of(data), "held_out": config["held_out"], "images": len(images), "systems": names}
    write_text(folder / "encoding.json", json.dumps(record, indent=1) + "\n")
    for row in [*rows, *pairs]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(f"noises and tables: {folder}")
    return 0
