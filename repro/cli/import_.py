"""``repro import``: an author-released checkpoint becomes a run of this project."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import yaml

from repro import records, registry
from repro.checkpoints.native import AtomicCheckpointIO, checkpoint_of
from repro.cli import runs
from repro.cli.objects import build
from repro.cli.parser import Parser, last, split
from repro.cli.schema import options_of
from repro.errors import UserError
from repro.files import say, write_text
from repro.models.decoded import Decoded
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format
from repro.released.importing import AUTO, Imported, assumptions, format_of, import_file

__all__ = ["run"]

_USAGE = "repro import FILE [--format NAME] [--output DIR] [--decoder DIR] [options of the format]"


def _parser(name: str, chosen: type[Format]) -> Parser:
    about = (inspect.getdoc(chosen) or "").partition("\n\nArgs:")[0]
    parser = Parser(
        prog="repro import",
        usage=_USAGE,
        description=f"Reads a file of the format {name} and keeps its model as a run. {about.replace('``', '')}",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=str, metavar="FILE", help="The released file.")
    parser.add_argument("--format", type=str, default=AUTO, help="Its format (repro plugins checkpoints).")
    parser.add_argument("--output", type=str | None, help="The run's folder; runs/imported/<file> by default.")
    parser.add_argument(
        "--decoder",
        type=str | None,
        help="For a model of latents, the autoencoder whose decoder makes images of them: a folder in the layout of "
        "diffusers, or a name on its hub.",
    )
    parser.add_class_arguments(chosen, fail_untyped=False)
    return parser


def _help() -> str:
    lines = [
        f"usage: {_USAGE}",
        "",
        "Reads an author-released checkpoint, executing nothing of it, and keeps its model",
    ]
    lines += ["as a run, for predict, test, compare and as a teacher. Formats, told apart by themselves:", ""]
    for name in registry.names("checkpoints"):
        try:
            chosen = registry.load("checkpoints", name)
            lines += [f"  {name:<12} {chosen.about}", f"  {'':<12} options: --{', --'.join(options_of(chosen))}"]
        except UserError as error:
            lines.append(f"  {name:<12} BROKEN: {error}")
    lines += ["", "  repro import FILE --help   what the options of the file's format mean"]
    return "\n".join(lines)


def _described(built: Any) -> str:
    """A plug-in as it would be written, with the arguments that are not its default."""
    record, usual = records.record_of(built), inspect.signature(type(built)).parameters
    unusual = [f"{key}={value!r}" for key, value in record["args"].items() if value != usual[key].default]
    return f"{record['name']}({', '.join(unusual)})"


def _report(imported: Imported, drawer: DenoisingModel) -> list[str]:
    """What was found; ``drawer`` is the model of the file, without a decoder."""
    model, file = imported.model, imported.file
    count = sum(parameter.numel() for parameter in drawer.denoiser.parameters())
    classes = f"{model.num_classes} classes" if model.num_classes else "unconditional"
    lines = [
        f"{imported.format}: {file.found}",
        f"{count:,} parameters, images {'x'.join(map(str, model.image_shape))}, {classes}",
        f"kernel {_described(drawer.denoiser.kernel)}, {_described(drawer.denoiser.parameterization)}",
        f"sampler {_described(model.sampler)}",
    ]
    if model is not drawer:
        latents = "x".join(map(str, drawer.image_shape))
        lines.append(f"latents {latents}, decoded by the autoencoder of sha256 {model.decoder_sha256}")
    if file.assumed:
        lines.append(f"assumed, since the file does not say: {assumptions(file.assumed)}")
    return [*lines, f"sha256 {file.sha256}"]


def _write(imported: Imported, output: str | None) -> str:
    """Keeps the model as a run; returns its folder."""
    model = imported.model
    config = {"model": records.as_config(records.record_of(model))}
    status = {
        "checkpoint": "last.ckpt",
        "step": 0,
        "images_seen": 0,
        "finished": True,
        "model": type(model).__name__,
        "image_shape": list(model.image_shape),
        "num_classes": model.num_classes,
        "imported": imported.record(),
    }
    with runs.run_folder(None, f"imported/{imported.file.title}", output) as folder:
        write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, width=120))
        AtomicCheckpointIO().save_checkpoint(checkpoint_of(imported), folder / "checkpoints" / "last.ckpt")
        write_text(folder / "run.json", json.dumps(status, indent=1) + "\n")
    return str(folder)


def run(command: str, arguments: list[str]) -> int:
    """Reads a file, keeps its model as a run, and tells what was found and assumed.

    Args:
        command: ``import``.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    words = split(arguments)
    bare, format = [word.text for word in words if not word.option], last(words, "--format") or AUTO
    if not bare:
        if {"-h", "--help"} & set(arguments):
            say(*_help().split("\n"))
            return 0
        raise UserError("name the released file: repro import FILE (formats: repro import --help)")
    if len(bare) > 1:
        raise UserError(f"one file at a time: {bare[0]} or {bare[1]}? options are written --key value")
    name = format_of(ForeignFile(bare[0]), format)
    chosen = registry.load("checkpoints", name)
    config = _parser(name, chosen).parse_command(words)
    options = {option: build(config[option], option) for option in options_of(chosen)}
    imported = import_file(bare[0], name, **options)
    drawer = imported.model
    if config.decoder is not None:
        imported = replace(imported, model=Decoded(drawer, config.decoder).eval().requires_grad_(False))
    folder = _write(imported, config.output)
    imported.tell()
    say(*_report(imported, drawer), f"run: {folder}", f"next: repro predict --ckpt_path {folder} --seeds 0-999")
    return 0
