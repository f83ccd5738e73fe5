"""``repro compare``: banks, or what checkpoints draw, against each other and against their training images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from repro.banks import Bank, format_seeds
from repro.banks.manifest import MANIFEST_NAME
from repro.checkpoints.loading import load_model
from repro.cli import runs
from repro.cli.fill import build
from repro.cli.parser import Parser, quiet, stoppable
from repro.cli.words import split
from repro.comparison import compare
from repro.comparison.report import check_report_path
from repro.data.base import ImageData
from repro.descriptors.base import Descriptor
from repro.drawing import bank_of
from repro.errors import UserError
from repro.images import to_uint8
from repro.metrics.functional.mae import check_mae_threshold
from repro.metrics.functional.similarity import check_threshold
from repro.metrics.protocol import pair_metrics

__all__ = ["run"]

_SEEDS = "0-999"
_SEVERAL = ("--names", "--metric")


def _parser() -> Parser:
    parser = Parser(
        prog="repro compare",
        usage="repro compare BANK|CKPT BANK|CKPT ... [options]",
        description="How alike models are on the same noises (RP, MAE), and how much they memorise (GL), with chance "
        "levels and 95 % intervals.",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument(
        "systems", nargs="*", type=str, metavar="BANK|CKPT", help="Banks, or runs or checkpoints to draw from."
    )
    parser.add_argument("--names", type=list[str] | None, help="Names of the systems, in their order.")
    parser.add_argument("--seeds", type=str | None, help=f"Which noises; those of the banks by default, else {_SEEDS}.")
    parser.add_argument("--task", type=str | None, help="What is drawn from checkpoints (repro plugins tasks).")
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="Scale w of classifier-free guidance for checkpoints with classes: uncond + w (cond - uncond); 1 is none.",
    )
    parser.add_argument("--classes", type=str | None, help="Which classes those draw, such as 0-4,7; by default all.")
    parser.add_argument(
        "--descriptor",
        type=Descriptor | None,
        help="What makes two images alike; SSCD when its weights are there, else SmallSSCD.",
    )
    parser.add_argument("--threshold", type=float | None, help="Similarity above which two images are the same.")
    parser.add_argument(
        "--mae_threshold", type=float, default=15.0, help="Mean difference, in [0, 255], below which they are."
    )
    parser.add_argument("--metric", type=list[str], default=[], help="Further metrics (repro plugins metrics).")
    parser.add_argument(
        "--train", type=ImageData | None, help="Training images for GL; by default those that the banks name."
    )
    parser.add_argument("--output", type=str | None, help="Folder for tables and figures; runs/compare by default.")
    parser.add_argument(
        "--report", type=str | None, help="Also write one HTML page: matrices to click, pairs, nearest training images."
    )
    parser.add_argument("--device", type=str, default="cpu", help="Where the descriptor runs.")
    return parser


def _paths(systems: Sequence[str]) -> list[Path]:
    given = [Path(path) for path in systems]
    if len(given) < 2:
        raise UserError("name at least two banks, runs or checkpoints: repro compare BANK BANK ...")
    for path in given:
        if not path.exists():
            raise UserError(f"there is no bank, run or checkpoint at {path}; draw a bank: repro predict")
    return given


def _names(given: Sequence[Path]) -> list[str]:
    """Names of the systems: of runs, also of those that banks lie in, else of folders; paths when two are the same."""
    folders = [runs.run_of_checkpoint(path.resolve()) or path.resolve() for path in given]
    above = [folder.parent.parent for folder in folders]
    of_runs = [
        run.name if (run / "run.json").is_file() else folder.name for folder, run in zip(folders, above, strict=True)
    ]
    for names in (of_runs, [folder.name for folder in folders]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in given]


def _is_bank(path: Path) -> bool:
    return (path / MANIFEST_NAME).is_file()


def _banks(
    given: Sequence[Path], seeds: str | None, task: str | None, guidance: float, classes: str | None
) -> list[Bank]:
    """The banks, those of checkpoints drawn with the given seeds, or with those of the first bank."""
    opened = {path: Bank.open(path) for path in given if _is_bank(path)}
    if seeds is None:
        seeds = format_seeds(next(iter(opened.values())).manifest.seeds) if opened else _SEEDS
    if len(opened) == len(set(given)):
        return [opened[path] for path in given]

    def drawn(path: Path) -> Bank:
        return bank_of(path, seeds, task, None, guidance, classes)

    with stoppable(lambda: "the same command goes on where this one stopped"):
        return [opened[path] if path in opened else drawn(path) for path in given]


def _train_images(banks: Sequence[Bank], given: ImageData | None) -> list[Tensor | None]:
    """Training images of each system: those given, or those that its bank names, where they can be had."""
    if given is not None:
        return [to_uint8(given.shown()[0])] * len(banks)
    images: list[Tensor | None] = []
    said: set[str] = set()
    for bank in banks:
        try:
            images.append(bank.training_images())
        except UserError as error:
            images.append(None)
            if json.dumps(bank.manifest.data) not in said:
                print(f"repro: warning: no GL on these training images: {error}", file=sys.stderr)
            said.add(json.dumps(bank.manifest.data))
    return images


def _folder(output: str | None) -> Path:
    return Path(output) if output else runs.claim("compare", None)


def run(command: str, arguments: list[str]) -> int:
    """Compares, prints the matrices and writes them with their figures.

    Args:
        command: ``compare``.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    with quiet():
        config = _parser().parse_command(split(arguments, _SEVERAL))
        descriptor, train = build(config.descriptor, "descriptor"), build(config.train, "train")
        given = _paths(config.systems)
        if config.threshold is not None:
            check_threshold(config.threshold)
        check_mae_threshold(config.mae_threshold)
        pair_metrics(config.metric, "")
        report = check_report_path(config.report) if config.report else None
        steered = config.guidance != 1 or config.classes is not None
        if steered and not any(load_model(path).num_classes for path in given if not _is_bank(path)):
            raise UserError("guidance and classes are for checkpoints with classes, and there is none; leave them out")
        banks = _banks(given, config.seeds, config.task, config.guidance, config.classes)
        found = compare(
            banks,
            descriptor,
            _train_images(banks, train),
            config.threshold,
            config.mae_threshold,
            config.names or _names(given),
            metrics=config.metric,
            seeds=config.seeds,
            device=config.device,
        )
        folder = _folder(config.output)
        found.write(folder)
        found.to_tensorboard(folder)
        if report is not None:
            found.report(report)
    print(found)
    print(f"tables and figures: {folder}; in TensorBoard: tensorboard --logdir {folder}")
    if report is not None:
        print(f"report: {report}")
    return 0
