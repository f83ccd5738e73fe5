"""``repro study``: one of the paper's figures, or another named experiment, doing only what is missing."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile

from repro.cli.configs import config_path, layers, read_config
from repro.cli.main import main
from repro.cli.objects import build
from repro.cli.parser import Parser, split
from repro.errors import UserError, unknown
from repro.files import say
from repro.records import flat
from repro.registry import entries, load, names
from repro.studies import SCALES, Study
from repro.studies.cost import cost_of
from repro.studies.executors import Executor, Local
from repro.studies.jobs import Job, merged, remaining, state_of

__all__ = ["run"]


def _parser(study: type[Study] | None) -> Parser:
    """The options of every study, and the constructor arguments of one."""
    known = "\n".join(f"  {entry.name}" for entry in entries("studies"))
    parser = Parser(
        prog="repro study",
        description=f"Runs a study: trains and draws what is missing in its folder, then reports. Known: {known}",
        print_config=None,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="Options from a file, as jobs/measure_*.yaml are.")
    parser.add_argument("study", type=str, metavar="NAME", help="Which study (repro plugins studies).")
    parser.add_argument("--scale", type=str, default="tiny", help=f"How large: {', '.join(SCALES)}.")
    parser.add_argument(
        "--images", type=str | None, help="Folder or archive of images to learn instead of the scale's data."
    )
    parser.add_argument("--output", type=str | None, help="The study's folder; runs/<study>_<scale> by default.")
    parser.add_argument("--overlay", type=str | None, help="Config whose settings win over those of every training.")
    parser.add_argument("--part", type=str | None, help="Do only this measurement, on what is in the folder.")
    parser.add_argument("--executor", type=Executor | None, help="What runs the jobs (repro plugins executors).")
    parser.add_argument("--workers", type=int | None, help="Short for --executor Local --executor.workers.")
    parser.add_argument("--gpu_tflops", type=float, default=40.0, help="What a GPU is taken to sustain, for the cost.")
    parser.add_argument("--dry_run", action="store_true", help="Print the jobs, their sizes and their cost, and stop.")
    parser.add_argument("--cancel", action="store_true", help="Take back the jobs that an executor has handed on.")
    if study is not None:
        parser.add_class_arguments(study, instantiate=False, sub_configs=True)
    return parser


def _named_first(arguments: Sequence[str]) -> list[str]:
    """A command line that begins with the study's name, also where a config holds it: ``--config jobs/measure.yaml``.

    Raises:
        UserError: the config file cannot be read or names no study.
    """
    words = list(arguments)
    if words[:1] != ["--config"] or len(words) < 2:
        return words
    settings = read_config(config_path(words[1]))
    if "study" not in settings:
        raise UserError(f"config file {words[1]} names no study; type repro study NAME --config {words[1]}")
    own = {key: value for key, value in settings.items() if key != "study"}
    return [str(settings["study"]), f"--config={json.dumps(own)}", *words[2:]]


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
    inputs = list(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))
    return [words[0], *([f"--inputs={json.dumps(inputs)}"] if inputs else []), *words[1 + len(inputs) :]]


def _overlay(wanted: str | None) -> Mapping[str, Any]:
    """Settings of a config that go over every training.

    Raises:
        UserError: there is no such config, or it builds on others.
    """
    if wanted is None:
        return {}
    settings = read_config(config_path(wanted))
    if built := settings.keys() & {"config", "by_class"}:
        raise UserError(f"--overlay {wanted} has the key {min(built)}; write the settings out")
    return settings


def _listed(jobs: Sequence[Job], folder: Path, running: Mapping[str, str], gpu_tflops: float) -> Iterator[str]:
    """One line a job with its state, settings and size, and what is left to be done."""
    left = remaining(jobs, folder)
    for job in jobs:
        settings = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in flat(job.settings, "").items())
        state = running.get(job.name, "").lower() or state_of(job, folder)
        size = f"about {job.size.seconds:.0f} s" if job.size.seconds < 600 else f"{job.size.seconds / 60:,.0f} minutes"
        size += f", {job.size.memory:g} GB" + (f", {job.size.gpus} GPU" if job.size.gpus else "")
        yield f"{state + '  ' if state else ''}{job.name}: repro {job.command}: {settings}  ({size})"
    seconds = sum(job.size.seconds for job in left)
    where = "a GPU each" if any(job.size.gpus for job in left) else "one core"
    yield f"{len(left)} of {len(jobs)} jobs are left: about {seconds / 60:,.0f} minutes on {where}"
    if any(job.size.gpus for job in left):
        yield cost_of(left, _resolved, gpu_tflops)


def _resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a job, those of the configs that it starts from below them."""
    named: dict[str, str] = {}
    starts = settings.get("config", [])
    result: dict[str, Any] = {}
    for start in [starts] if isinstance(starts, str) else starts:
        for _, layer in layers(start, named):
            result = merged(result, layer)
    return merged(result, {key: value for key, value in settings.items() if key != "config"})


def _executor(config: Any) -> Executor:
    if config.workers is None:
        return build(config.executor, "executor") or Local()
    if config.executor is not None:
        raise UserError("--workers is short for --executor Local --executor.workers; give one of the two")
    return Local(config.workers)


def run(command: str, arguments: list[str]) -> int:
    """Runs a study and prints its report.

    Args:
        command: ``study``.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    words = _named_first(arguments)
    chosen = _chosen(words)
    own = list(inspect.signature(chosen).parameters) if chosen else []
    config = _parser(chosen).parse_command(split(_with_inputs(chosen, words)))
    if config.scale not in SCALES:
        raise unknown("scale", config.scale, SCALES)
    study = load("studies", config.study)(**{name: build(config[name], name) for name in own})
    folder = Path(config.output or f"runs/{config.study}_{config.scale}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name another folder: --output DIR")
    executor = _executor(config)
    over = _overlay(config.overlay)
    scale = SCALES[config.scale].on(config.images)
    plan, _ = study.planned(folder, scale, over)
    if config.cancel:
        lines = [f"cancelled: {', '.join(executor.cancel(folder)) or 'nothing was there'}"]
    elif config.part:
        lines = [f"measured: {plan.measure_now(config.part)}"]
    elif config.dry_run:
        lines = [*_listed(plan.jobs(), folder, executor.running(folder), config.gpu_tflops)]
    else:
        lines = [study.run(folder, scale, executor, main, over)]
    say(*"\n".join(lines).split("\n"))
    return 0
