"""``repro compare``: banks, or what checkpoints draw, against each other and against their training images."""

from __future__ import annotations

from pathlib import Path

from repro.cli import runs
from repro.cli.objects import build
from repro.cli.parser import Parser, split
from repro.cli.quiet import stoppable
from repro.comparison import compare
from repro.comparison.report import check_report_path
from repro.comparison.training import RECORDED
from repro.data.base import ImageData
from repro.descriptors.base import Descriptor
from repro.drawing.systems import SEEDS
from repro.files import say
from repro.images import to_uint8

__all__ = ["run"]

_SEVERAL = ("--names", "--metric", "--paired")


def _parser() -> Parser:
    parser = Parser(
        prog="repro compare",
        usage="repro compare [NAME=]PATH [NAME=]PATH ... [options]",
        description="How alike models are on the same noises (RP, MAE), and how much they memorise (GL), with chance "
        "levels and 95 % intervals.",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument(
        "systems",
        nargs="*",
        type=str,
        metavar="[NAME=]PATH",
        help="What to compare, mixed: banks; runs, checkpoints or released files, which draw unless the run has a bank "
        "of the seeds; folders, archives, .npz or .npy files of images, numbered by their names or their order.",
    )
    parser.add_argument("--names", type=list[str] | None, help="Names of the systems, in their order.")
    parser.add_argument("--seeds", type=str | None, help=f"Which noises; those of the banks by default, else {SEEDS}.")
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
    parser.add_argument("--confidence", type=float, default=0.95, help="Coverage of every interval.")
    parser.add_argument(
        "--paired",
        type=list[str] | None,
        help="Systems A for which 'is A more alike to B than to C?' is tested; all of them up to 12 systems.",
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
    config = _parser().parse_command(split(arguments, _SEVERAL))
    descriptor, train = build(config.descriptor, "descriptor"), build(config.train, "train")
    report = check_report_path(config.report) if config.report else None
    with stoppable(lambda: "the same command goes on where this one stopped"):
        compared = compare(
            config.systems,
            descriptor,
            RECORDED if train is None else to_uint8(train.shown()[0]),
            config.threshold,
            config.mae_threshold,
            config.names,
            metrics=config.metric,
            seeds=config.seeds,
            device=config.device,
            confidence=config.confidence,
            paired=config.paired,
            task=config.task,
            guidance=config.guidance,
            classes=config.classes,
        )
    folder = _folder(config.output)
    compared.write(folder)
    compared.to_tensorboard(folder)
    if report is not None:
        compared.report(report)
    say(*str(compared).split("\n"))
    say(f"tables and figures: {folder}; in TensorBoard: tensorboard --logdir {folder}")
    if report is not None:
        say(f"report: {report}")
    return 0
