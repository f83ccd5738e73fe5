"""Going on from a checkpoint: which one, under which settings, and refusing what does not fit together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from repro import registry
from repro.checkpoints.format_1 import in_format_2
from repro.checkpoints.native import data_of, read_checkpoint, training_record
from repro.cli import runs
from repro.cli.objects import data as plain, learnt_from, specs
from repro.cli.parser import Word, last
from repro.cli.schema import class_of
from repro.data.base import ImageData
from repro.data.trust import was_named
from repro.errors import Outside, UserError
from repro.files import parse_yaml
from repro.models.weights import load_weights
from repro.records import differences, flat, record_of
from repro.released.addresses import local_path
from repro.training.base import TrainingModule

__all__ = [
    "check",
    "check_reach",
    "checkpoint_of",
    "checkpoint_that_fits",
    "newest_in",
    "run_of_same_settings",
    "runs_that_fit",
    "with_config_of_run",
]

_FREE = {"model.compile", "data.workers", "data.in_memory", "data.cache"}
_PLACES = {"data.path", "data.root"}
_TRAINER = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "precision")
_LAST = Path("checkpoints") / "last.ckpt"


def with_config_of_run(words: list[Word]) -> list[Word]:
    """Puts the config of the run that is resumed before the words of ``fit``, unless they name one.

    That file may be a stranger's: it sets options, and names registered classes, but no others.
    """
    path = last(words, "--ckpt_path")
    if path is None or path == "last" or last(words, "--config"):
        return words
    folder = runs.run_of_checkpoint(path)
    saved = None if folder is None else folder / "config.yaml"
    return [Word("--config", str(saved), typed=False), *words] if saved is not None and saved.is_file() else words


def check_reach(words: Sequence[Word], model: Any, data: Any) -> None:
    """Checks that a run's own config, which was read unasked, names nothing outside that this user did not name.

    Named is what was typed now, or in a config that was, and what this user trained with here before.

    Args:
        words: The words of ``fit``.
        model: The parsed model, or None.
        data: The parsed data, or None.

    Raises:
        UserError: a teacher, a start or images that are not to be read.
    """
    unasked = next((word.value for word in words if word.option == "--config" and not word.typed), None)
    if unasked is None:
        return
    typed = {word.option.removeprefix("--").replace(".init_args", "") for word in words if word.typed}
    role, path = learnt_from(model) if model is not None else ("", None)
    try:
        if path and f"model.{role}" not in typed and not was_named(path):
            raise Outside(f"{role} {path} is outside of that run, and not read unasked")
        for where, spec in itertools.chain(specs(model, "model"), specs(data, "data")):
            cls, arguments = class_of(spec["class_path"]), spec.get("init_args") or {}
            places = {f"{where}.{key}" for key in ("path", "root") if arguments.get(key) is not None} or {where}
            if not places <= typed and issubclass(cls, registry.Plugin):
                cls.inside_only(plain(arguments))
    except Outside as error:
        raise UserError(f"config file {unasked}: {error}; if you trust that file, type --config {unasked}") from error


def checkpoint_of(wanted: str, name: str) -> Path:
    """Returns the checkpoint file to resume from: a file, a run's folder, or ``last`` for the newest run of a name."""
    if wanted == "last":
        named = runs.runs_named(name)
        if not named:
            raise UserError(f"--ckpt_path last: no run {runs.RUNS / name} has a checkpoint; leave it out to start one")
        return named[0] / _LAST
    return Path(wanted) / _LAST if Path(wanted).is_dir() else Path(wanted)


def newest_in(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run's folder; None where there is none yet."""
    path = folder / _LAST
    return path if path.is_file() else None


def check(path: Path, model: TrainingModule, data: ImageData, settings: Mapping[str, Any]) -> int:
    """Compares a checkpoint and its run's saved config with what is to be trained now.

    Args:
        path: The checkpoint.
        model: The model, as now configured.
        data: The data, as now configured.
        settings: All settings, as plain data.

    Returns:
        Optimiser steps that the checkpoint has behind it.

    Raises:
        UserError: the checkpoint cannot be read, its weights do not fit, or settings differ, naming them; only
            ``max_steps`` may grow.
    """
    checkpoint = read_checkpoint(path)
    trained, (data_record, data_fingerprint) = training_record(checkpoint), data_of(checkpoint)
    if trained is None:
        raise UserError(
            f"{path} holds a model without a training to go on with; fine-tune it: --task finetune --model.start {path}"
        )
    known = flat(trained, "model")
    changed = {key: pair for key, pair in differences(trained, record_of(model), "model").items() if key in known}
    if data_record is not None:
        changed |= differences(data_record, record_of(data), "data")
    if changed.keys() & _PLACES and data.fingerprint() == data_fingerprint:
        changed = {key: pair for key, pair in changed.items() if key not in _PLACES}
    changed |= _trainer_differences(path, settings)
    changes = [f"{key} was {old}, is now {new}" for key, (old, new) in changed.items() if key not in _FREE]
    if changes:
        raise UserError(
            f"cannot resume {path}: {'; '.join(changes)}; "
            "give the same settings, or leave out --ckpt_path to start a new run"
        )
    in_format_2(checkpoint, model.averaged)
    load_weights(model, checkpoint["state_dict"], f"checkpoint {path}")
    return int(checkpoint.get("global_step", 0))


def run_of_same_settings(
    name: str, output: str | None, settings: Mapping[str, Any]
) -> tuple[Path | None, dict[str, tuple[Any, Any]]]:
    """Returns the run that the same command began before, if there is one.

    Args:
        name: Name of the run; ``<name>-2``, ``-3``, ... are looked at too, the newest first.
        output: Its folder instead.
        settings: All settings, as plain data.

    Returns:
        Its folder, or None; then, where a run of that name has other settings, what differs: key -> (there, here).
    """
    unlike: dict[str, tuple[Any, Any]] = {}
    for folder in [Path(output)] if output else runs.runs_named(name, started=True):
        saved = _saved(folder)
        if saved is None:
            continue
        changed = _settings_differences(saved, settings)
        if not changed:
            return folder, {}
        unlike = unlike or changed
    return None, unlike


def _settings_differences(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where what is trained now differs from a run's saved settings; how fast, and with what show, does not count."""
    changed: dict[str, tuple[Any, Any]] = {}
    old, new = (
        {key: each.get(key) for key in ("model", "data", "task", "seed_everything")} for each in (saved, settings)
    )
    for key in (*_TRAINER, "max_steps"):
        old[f"trainer.{key}"], new[f"trainer.{key}"] = (
            (each.get("trainer") or {}).get(key) for each in (saved, settings)
        )
    for key in old:
        known = flat(old[key], key)  # a saved config of an earlier version does not know today's further options
        changed |= {name: pair for name, pair in differences(old[key], new[key], key).items() if name in known}
    return {key: pair for key, pair in changed.items() if key not in _FREE}


def _saved(folder: Path) -> Mapping[str, Any] | None:
    """The settings that a run was started with; None where they cannot be had."""
    with suppress(OSError, UserError, UnicodeError):
        saved = parse_yaml((folder / "config.yaml").read_text(encoding="utf-8"), f"config of {folder}")
        if isinstance(saved, Mapping) and isinstance(saved.get("trainer", {}), Mapping):
            return saved
    return None


def _trainer_differences(path: Path, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    folder = runs.run_of_checkpoint(path)
    saved = None if folder is None else _saved(folder)
    if saved is None or "trainer" not in saved:
        return {}
    old, new = saved["trainer"], settings["trainer"]
    changed = {f"trainer.{key}": (old.get(key), new.get(key)) for key in _TRAINER if old.get(key) != new.get(key)}
    if (old.get("max_steps") or 0) > (new.get("max_steps") or 0) >= 0:
        changed["trainer.max_steps"] = (old["max_steps"], f"{new['max_steps']} (it may only grow)")
    if saved.get("seed_everything") != settings.get("seed_everything"):
        changed["seed_everything"] = (saved.get("seed_everything"), settings.get("seed_everything"))
    return changed


def _unlike(there: Any, here: Any) -> dict[str, tuple[Any, Any]]:
    """Where a model differs from settings that were given; what they leave open (None) fits everything."""
    changed, known = differences(there, here, "model"), flat(there, "model")
    later = {key for key, (_, wanted) in changed.items() if key not in known and wanted is False}  # than the record
    return {key: pair for key, pair in changed.items() if pair[1] is not None and key not in {*_FREE, *later}}


def checkpoint_that_fits(path: str, model: Any) -> Path:
    """Checks that the model of a checkpoint is the one that was asked for, and returns its path."""
    if model is not None:
        checkpoint = read_checkpoint(path)
        changed = _unlike(training_record(checkpoint) or checkpoint["repro"]["model"]["record"], model)
        if changed:
            changes = "; ".join(f"{key} was {old}, is now {new}" for key, (old, new) in changed.items())
            raise UserError(
                f"checkpoint {path} holds another model: {changes}; leave the model out, the checkpoint rebuilds its "
                "own"
            )
    return local_path(path)


def runs_that_fit(model: Any, task: str | None, like: Path | None = None) -> Iterator[Path]:
    """Returns the finished runs of this model (any, when None) that can do this task (any, when None), newest first.

    Args:
        model: Settings of the model.
        task: Name of the task.
        like: Only runs trained on the data of this one, and not itself.
    """
    data = None if like is None else data_of(read_checkpoint(like, verify=False))[1]

    def fits(folder: Path, status: Mapping[str, Any]) -> bool:
        classes, mode = int(status.get("num_classes") or 0), str(status.get("model"))
        if task is not None and not registry.load("tasks", task)().fits(classes, mode):
            return False
        if model is None:
            return bool(status.get("draws", True))
        saved = _saved(folder)
        return saved is not None and "model" in saved and not _unlike(saved["model"], model)

    for folder in runs.finished(fits):
        if like is None or (folder != like and data_of(read_checkpoint(folder, verify=False))[1] == data):
            yield folder
