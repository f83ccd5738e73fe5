"""Figures 1, 6, 12, 13 and 14: how alike the images are that different systems draw from the same noises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure

from repro.banks import Bank, format_seeds
from repro.comparison import Comparison, compare
from repro.descriptors.base import Descriptor
from repro.descriptors.pixels import Pixels
from repro.drawing import kind_of
from repro.errors import UserError, nearest
from repro.plots import heat_map, image_grid
from repro.studies import SCALES, SYSTEMS, Drawn, Plan, Report, Study, Trained, draw, train
from repro.studies.system_table import as_text, facts_of, system_rows

__all__ = ["Similarity"]

_GRID_ROWS = 8


@dataclass(frozen=True)
class _Part:
    """One system of the comparison: its bank, or the images of others at a path; its training if this plan has it."""

    name: str
    images: Drawn | Path
    run: Trained | None = None

    def open(self) -> Bank:
        return Bank.from_folder(self.images) if isinstance(self.images, Path) else self.images.open()


class Similarity(Study):
    """RP and MAE of every pair of systems on the same noises, with their chance levels.

    Without inputs the twenty systems of Table 1 are trained: at the scale ``tiny`` on the 8 x 8 digits with narrow
    networks, at ``cpu`` on CIFAR-10 at 16 x 16 with networks of a million parameters, at ``small`` on CIFAR-10 with
    narrow networks, at ``paper`` with the paper's settings. At ``tiny`` and ``cpu``, systems that the paper trains to
    predict the noise predict v, which learns the same in fewer steps, and each progressive student learns from the one
    before. DDPMv5 draws with DDPMv4's weights, as everywhere.

    Args:
        inputs: What to compare instead, two or more: names of the paper's systems, banks, runs, checkpoints of any
            known format, or folders, archives and .npz files of images that others released.
        seeds: Which noises; by default those of the first bank among the inputs, else 0-999 (``tiny``, ``cpu``),
            0-1999 or, as in the paper, 0-9999.
        descriptor: What makes two images alike; by default pixels on the digits, else as for ``repro compare``.
        threshold: Similarity above which two images are the same; by default 0.95 on the digits' pixels, else the
            descriptor's.
    """

    name: ClassVar[str] = "similarity"
    figure: ClassVar[str] = "1, 6, 12, 13 and 14"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def __init__(
        self,
        inputs: list[str] | None = None,
        seeds: str | None = None,
        descriptor: Descriptor | None = None,
        threshold: float | None = None,
    ) -> None:
        self.inputs = _inputs(list(SYSTEMS) if inputs is None else inputs)
        self.seeds, self.descriptor, self.threshold = seeds, descriptor, threshold

    def plan(self, plan: Plan) -> list[_Part]:
        """Trains and draws the systems, each after its teacher; draws from the given models."""
        return [self._part(plan, name, path) for name, path in self.inputs.items()]

    def _part(self, plan: Plan, name: str, path: Path | None) -> _Part:
        banks = [each for each in self.inputs.values() if each is not None and _kind(each) == "bank"]
        first = format_seeds(Bank.open(banks[0]).manifest.seeds) if banks else plan.scale.seeds
        seeds = self.seeds or first
        if path is None:
            trained = train(plan, SYSTEMS[name].weights or name)
            return _Part(name, draw(plan, name, seeds), trained)
        if _kind(path) == "model":
            run = Trained(name, path if path.is_dir() else path.parent.parent)
            return _Part(name, plan.draw(name, path, seeds), run)
        return _Part(name, path if _kind(path) == "images" else Drawn(name, path))

    def report(self, report: Report, parts: list[_Part]) -> None:
        """Matrices and grids as text, CSV, PNG and TensorBoard log, and a table with one row a system."""
        banks = {part.name: part.open() for part in parts}
        compared = self._compare(parts, list(banks.values()))
        report.comparison("results", compared)
        facts = [facts_of(banks[part.name], part.run, part.images, report.folder) for part in parts]
        rows = system_rows(compared, facts)
        report.table("results/systems", rows, compared)
        report.figure(*([figure] for figure in _figures(compared)))
        report.text(as_text(compared, rows))

    def _compare(self, parts: list[_Part], banks: list[Bank]) -> Comparison:
        """Under the descriptor and threshold asked for, else pixels above 0.95 on the digits, else the usual ones."""
        descriptor, threshold = self.descriptor, self.threshold
        if descriptor is None and banks[0].manifest.image_shape == (1, 8, 8):
            descriptor, threshold = Pixels(), SCALES["tiny"].judge.threshold if threshold is None else threshold
        seeds: Any = self.seeds
        if seeds is None and any(isinstance(part.images, Path) for part in parts):
            seeds = sorted(set.intersection(*(set(bank.manifest.seeds) for bank in banks)))
            if not seeds:
                raise UserError("the inputs have no noise in common; draw the same seeds, or give others")
        train = [_training_images(bank) for bank in banks]
        return compare(banks, descriptor, train, threshold, names=[part.name for part in parts], seeds=seeds)


def _kind(path: Path | None) -> str:
    """What is at a path: a ``bank``, a ``model`` (a run or checkpoint) or ``images``; ``system`` for no path."""
    return "system" if path is None else kind_of(path)


def _inputs(words: list[str]) -> dict[str, Path | None]:
    """What to compare, under different names: a path, or None for one of the paper's systems.

    Raises:
        UserError: fewer than two, or one that is neither a name nor a path.
    """
    if len(words) < 2:
        raise UserError(f"{len(words)} input given; name at least two: systems, banks, runs or folders of images")
    by_name = {name.lower(): name for name in SYSTEMS}
    named: list[tuple[str, Path | None]] = []
    for text in words:
        path = Path(text)
        if path.exists():
            run = path.parent.parent if path.parent.name == "checkpoints" else path
            named.append((run.name if run.is_dir() else run.stem, path))
        elif text.lower() in by_name:
            named.append((by_name[text.lower()], None))
        else:
            near = nearest(text, SYSTEMS)
            guess = f"; did you mean {near}?" if near else ";"
            raise UserError(f"nothing is at {text}, and it is no system{guess} systems: {', '.join(SYSTEMS)}")
    names = [name for name, _ in named]
    return {
        name if names.count(name) == 1 else f"{name}-{number}": path for number, (name, path) in enumerate(named, 1)
    }


def _training_images(bank: Bank) -> Any:
    """Training images of a system where they are known and can be had."""
    try:
        return bank.training_images()
    except UserError:
        return None


def _figures(compared: Comparison) -> Iterator[Figure]:
    rp, mae, rows = compared.scores["RP"], compared.scores["MAE"], min(_GRID_ROWS, compared.n)
    condition = (
        f"above the diagonal: RP, {compared.descriptor['name']} > {compared.threshold:g}; below: MAE score, mean "
        f"difference < {compared.mae_threshold:g} of 255; n = {compared.n:,}"
    )
    yield heat_map(rp.rates, compared.names, "Same noise, same image", condition, mae.rates)
    images = torch.stack([bank.images[:rows] for bank in compared.banks], dim=1)
    seeds = [str(seed) for seed in compared.banks[0].seeds[:rows].tolist()]
    yield image_grid(images, compared.names, seeds, "What each system draws", "one row a noise, one column a system")
