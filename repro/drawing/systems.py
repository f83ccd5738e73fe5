"""What is compared, in whatever form it comes: runs, checkpoints, banks, images in files or in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.fabric import Fabric
from torch import Tensor

from repro.banks import Bank, format_seeds
from repro.banks.foreign import as_images
from repro.banks.manifest import MANIFEST_NAME, Manifest, read_manifest
from repro.drawing.bank import draw, drawn_model, run_folder_of, same_model
from repro.drawing.drawing import Drawing
from repro.errors import UserError
from repro.inverse.problem import Problem
from repro.models.base import Model
from repro.noise import parse_seeds
from repro.released.addresses import local_path
from repro.tasks.base import Conditional

__all__ = ["System", "kind_of", "named", "systems_of"]

SEEDS = "0-999"
_OF_IMAGES = (".npz", ".npy", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
_OF_MODELS = ("checkpoints", "run.json", "model_index.json", "config.json")


@dataclass(frozen=True)
class System:
    """One thing that is compared: a name, what its images are, and how to get them.

    Attributes:
        name: In tables.
        manifest: What its bank says, known before anything is drawn.
        open: Gives the bank; draws it where it is not there.
        drawn: Whether it comes from a model, so that task, guidance and classes are for it.
        note: How its images were come by, where that is no matter of course; one line.
    """

    name: str
    manifest: Manifest
    open: Callable[[], Bank]
    note: str = ""
    drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class _How:
    """How models draw that have no bank yet."""

    task: str | None
    guidance: float
    classes: str | None
    problem: Problem | None
    processes: Fabric | None

    def drawing(self, model: Model, seeds: str | Sequence[int]) -> Drawing:
        """A model without classes that stands beside conditional ones draws what it can."""
        plain = not model.num_classes and self.task in (None, Conditional.name)
        steering = (None, 1.0, None) if plain else (self.task, self.guidance, self.classes)
        task, guidance, classes = steering
        return Drawing(model=model, seeds=seeds, task=task, guidance=guidance, classes=classes, problem=self.problem)


@contextmanager
def _named_errors(item: Any, name: str) -> Iterator[None]:
    """Says of which of several systems a mistake is: its path, or its name."""
    try:
        yield
    except UserError as error:
        where = item if isinstance(item, str | os.PathLike) else name
        raise UserError(str(error) if str(error).startswith(str(where)) else f"{where}: {error}") from error


def named(text: str) -> tuple[str | None, str]:
    """Splits ``name=path``; a path that exists as it is keeps its equals sign.

    Example:
        >>> named("EDM=runs/edm"), named("runs/edm")
        (('EDM', 'runs/edm'), (None, 'runs/edm'))
    """
    name, equals, path = text.partition("=")
    return (name, path) if equals and name and not Path(text).exists() else (None, text)


def kind_of(path: str | os.PathLike[str]) -> Literal["bank", "model", "images"]:
    """Says what lies at a path, from names alone: a bank, a model (run, checkpoint, released file), or images.

    Raises:
        UserError: nothing is there.
    """
    path = local_path(path)
    if not path.exists():
        raise UserError(
            f"there is no bank, run or checkpoint at {path}, and no images; draw a bank: repro predict --ckpt_path RUN"
        )
    if (path / MANIFEST_NAME).is_file():
        return "bank"
    if path.is_dir():
        holds_model = any((path / name).exists() for name in _OF_MODELS) or any(path.glob("*.ckpt"))
        return "model" if holds_model else "images"
    return "images" if path.suffix.lower() in _OF_IMAGES else "model"


def systems_of(
    systems: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str] | None = None,
    seeds: str | Sequence[int] | None = None,
    task: str | None = None,
    guidance: float = 1.0,
    classes: str | None = None,
    problem: Problem | None = None,
    processes: Fabric | None = None,
) -> list[System]:
    """Takes everything that can be compared, mixed, and names it; draws nothing yet.

    Args:
        systems: Banks, models, paths (``path`` or ``name=path``) of banks, runs, checkpoints, released files, folders,
            archives or arrays (.npz, .npy) of images, and tensors or arrays of images; or a mapping from names.
        names: One each, in their order.
        seeds: Which noises models draw. When left out, those of the first bank or set of images; among models only,
            those that the banks in their runs have in common, or that the first of them has; else 0-999.
        task: What models draw for each noise.
        guidance: Scale of classifier-free guidance of models with classes; 1 is none.
        classes: Which classes models with classes draw, for example ``0-4,7``.
        problem: What an inverse task measures.
        processes: Who draws together.

    Raises:
        UserError: nothing at a path, a thing of another kind, names that do not fit.
    """
    how = _How(task=task, guidance=guidance, classes=classes, problem=problem, processes=processes)
    items: list[tuple[str | None, Any]] = (
        list(systems.items())
        if isinstance(systems, Mapping)
        else [named(item) if isinstance(item, str) else (None, item) for item in systems]
    )
    labels = _names(items, names)
    opened = [_opened(label, item) for label, (_, item) in zip(labels, items, strict=True)]
    finished: list[list[Bank]] = []
    for label, (_, item), entry in zip(labels, items, opened, strict=True):
        with _named_errors(item, label):
            finished.append([] if isinstance(entry, System) else list(_banks_there(*entry, how)))
    if seeds is None:
        first = next((entry for entry in opened if isinstance(entry, System)), None)
        seeds = format_seeds(first.manifest.seeds) if first else _common([banks for banks in finished if banks])
    numbers = parse_seeds(seeds)
    return [
        entry if isinstance(entry, System) else _drawn(label, *entry, item, banks, numbers, how)
        for label, (_, item), entry, banks in zip(labels, items, opened, finished, strict=True)
    ]


def _opened(name: str, item: Any) -> System | tuple[Model, Path | None]:
    """What is there already, or a model and the folder of its run."""
    if isinstance(item, Bank):
        return System(name, item.manifest, lambda: item)
    if isinstance(item, Model):
        return item, None
    if isinstance(item, Tensor | np.ndarray):
        images = as_images(item, name)
        bank = Bank.from_images(images, source="memory (numbered by order)")
        return System(name, bank.manifest, lambda: bank, f"{len(bank):,} images, numbered by their order")
    if not isinstance(item, str | os.PathLike):
        raise UserError(
            f"{name} is a {type(item).__name__}; give a bank, a model, a path, or a tensor or array of images"
        )
    kind = kind_of(item)
    if kind == "model":
        return drawn_model(item), run_folder_of(item)
    bank = Bank.open(item) if kind == "bank" else Bank.from_folder(item)
    by = "the names of their files" if bank.manifest.source.endswith("(numbered by name)") else "their order"
    note = f"{len(bank):,} images at {item}, numbered by {by}" if kind == "images" else ""
    return System(name, bank.manifest, lambda: bank, note)


def _banks_there(model: Model, run: Path | None, how: _How) -> Iterator[Bank]:
    """Finished banks in a run that hold what the model would draw, of whatever seeds."""
    if not (files := sorted((run / "banks").glob(f"*/{MANIFEST_NAME}")) if run else []):
        return
    wanted = how.drawing(model, [0]).manifest()
    for file in files:
        with suppress(UserError):  # one without images yet, or damaged, is none that can be used
            manifest = read_manifest(file.parent)
            named_alike = replace(same_model(wanted, model, file.parent), seeds=manifest.seeds)
            if not manifest.differences(named_alike) and (bank := Bank.open(file.parent)).complete:
                yield bank


def _common(finished: Sequence[Sequence[Bank]]) -> str | list[int]:
    """The largest set of seeds that every run has in a bank; of the first run, where they have none in common."""
    if not finished:
        return SEEDS
    best: list[int] = []
    for bank in finished[0]:
        seeds = set(bank.manifest.seeds)
        for others in finished[1:]:
            seeds = max((seeds & {*other.manifest.seeds} for other in others), key=len)
        best = max(best, [seed for seed in bank.manifest.seeds if seed in seeds], key=len)
    return best or max((bank.manifest.seeds for bank in finished[0]), key=len)


def _drawn(
    name: str, model: Model, run: Path | None, item: Any, finished: Sequence[Bank], seeds: list[int], how: _How
) -> System:
    """The bank of a run that has these seeds, or one that is drawn when it is asked for."""
    if (bank := next((bank for bank in finished if {*seeds} <= {*bank.manifest.seeds}), None)) is not None:
        chosen = replace(bank.manifest, seeds=seeds)
        note = f"the bank {bank.path} is there and is used"
        return System(name, chosen, lambda: bank if bank.manifest.seeds == seeds else bank.select(seeds), note, True)
    with _named_errors(item, name):
        drawing = how.drawing(model, seeds)
    chosen_task, guidance, classes = drawing.task, drawing.guidance, drawing.classes
    source = model if run is None else item  # read again when it draws, so that not all models are kept in memory

    def drawn() -> Bank:
        with _named_errors(item, name):
            return draw(
                source, seeds, chosen_task, guidance=guidance, classes=classes, problem=how.problem,
                processes=how.processes,
            )  # fmt: skip

    return System(name, drawing.manifest(), drawn, drawn=True)


def _names(items: Sequence[tuple[str | None, Any]], names: Sequence[str] | None) -> list[str]:
    """One name each: those given; of runs, also of those that banks lie in; else of folders and files."""
    if names is not None:
        if len(names) != len(items) or len(set(names)) != len(names):
            count = len(set(names))
            raise UserError(f"{count} different names for {len(items)} systems; give one each: --names A B ...")
        return [str(name) for name in names]
    for name_of in (_run_name, _own_name, _long_name):
        candidates = [name or name_of(item) for name, item in items]
        if len(set(candidates)) == len(candidates):
            return candidates
    candidates = [name or _own_name(item) for name, item in items]
    return [name if candidates.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(candidates, 1)]


def _path_of(item: Any) -> Path | None:
    if isinstance(item, Bank):
        return item.path
    return Path(item) if isinstance(item, str | os.PathLike) else None


def _run_name(item: Any) -> str:
    """Name of the run that something lies in, else its own."""
    if (path := _path_of(item)) is None:
        return _own_name(item)
    path = path.resolve()
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "run.json").is_file():
            return folder.name
    return _own_name(item)


def _own_name(item: Any) -> str:
    if isinstance(item, Bank):
        return item.name
    path = _path_of(item)
    if path is None:
        return type(item).__name__ if isinstance(item, Model) else "images"
    return path.resolve().stem if path.is_file() else path.resolve().name


def _long_name(item: Any) -> str:
    path = _path_of(item)
    return _own_name(item) if path is None else f"{path.resolve().parent.name}/{_own_name(item)}"
