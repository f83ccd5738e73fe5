"""``repro study``: one of the paper's figures, or another named experiment, doing only what is missing."""

from __future__ import annotations

import inspect
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from repro.cli.fill import build
from repro.cli.main import main
from repro.cli.parser import Parser, quiet
from repro.cli.words import split
from repro.errors import UserError, unknown
from repro.registry import entries, load, names
from repro.studies.base import Scale, Study
from repro.studies.jobs import LocalExecutor, remaining

__all__ = ["run"]

_SCALES = "How large: minutes, hours without a GPU (cpu), hours with one (small), or as in the paper."


def _parser(study: type[Study] | None) -> Parser:
    """The options of every study, and the constructor arguments of one."""
    known = "\n".join(f"  {entry.name}" for entry in entries("studies"))
    parser = Parser(
        prog="repro study",
        description=f"Runs a study: trains and draws what is missing in its folder, then reports. Known: {known}",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument("study", type=str, metavar="NAME", help="Which study (repro plugins studies).")
    parser.add_argument("--scale", type=Scale, default="tiny", help=_SCALES)
    parser.add_argument("--output", type=str | None, help="The study's folder; runs/<study>_<scale> by default.")
    parser.add_argument("--workers", type=int | None, help="Jobs at a time; one a core by default.")
    parser.add_argument("--dry_run", action="store_true", help="Print the jobs and their estimated cost, and stop.")
    if study is not None:
        parser.add_class_arguments(study, instantiate=False, sub_configs=True)
    return parser


def _chosen(arguments: Sequence[str]) -> type[Study] | None:
    """The study that a command line names, as its first word."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name is not None and name not in names("studies"):
        raise unknown("study", name, names("studies"), "list them: repro plugins studies")
    return load("studies", name) if name else None


def _with_inputs(study: type[Study] | None, arguments: Sequence[str]) -> list[str]:
    """The words between the study's name and its first option, as its ``inputs``, where it takes some."""
    words = list(arguments)
    if study is None or "inputs" not in inspect.signature(study).parameters:
        return words
    given = list(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))
    return [words[0], *([f"--inputs={json.dumps(given)}"] if given else []), *words[1 + len(given) :]]


def _plan(study: Study, folder: Path, scale: Scale) -> str:
    jobs = study.jobs(folder, scale)
    left = {job.name for job in remaining(jobs, folder)}
    lines = [
        f"{'' if job.name in left else 'done  '}{job.name}: repro {' '.join(job.command)}  (about {job.seconds:.0f} s)"
        for job in jobs
    ]
    seconds = sum(job.seconds for job in jobs if job.name in left)
    lines.append(f"{len(left)} of {len(jobs)} jobs are left: about {seconds / 60:.0f} minutes on one core")
    return "\n".join(lines)


def run(command: str, arguments: list[str]) -> int:
    """Runs a study and prints its report.

    Args:
        command: ``study``.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    with quiet():
        chosen = _chosen(arguments)
        own = list(inspect.signature(chosen).parameters) if chosen else []
        config = _parser(chosen).parse_command(split(_with_inputs(chosen, arguments)))
        if config.scale not in get_args(Scale):
            raise unknown("scale", config.scale, get_args(Scale))
        if config.scale not in chosen.scales:
            raise UserError(f"study {config.study} has no scale {config.scale}; choose {', '.join(chosen.scales)}")
        study = load("studies", config.study)(**{name: build(config[name], name) for name in own})
        folder = Path(config.output or f"runs/{config.study}_{config.scale}")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; name another folder: --output DIR")
        if config.dry_run:
            print(_plan(study, folder, config.scale))
            return 0
        report = study.run(folder, config.scale, LocalExecutor(main, config.workers))
    print(report, file=sys.stdout)
    return 0
