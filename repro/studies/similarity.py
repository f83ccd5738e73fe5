"""Figures 1, 6, 12, 13 and 14: how alike the images are that different systems draw from the same noises."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, get_args

import torch
from matplotlib.figure import Figure
from torch import Tensor

from repro.banks import Bank, format_seeds
from repro.banks.manifest import MANIFEST_NAME
from repro.comparison import Comparison, compare
from repro.descriptors.base import Descriptor
from repro.descriptors.pixels import Pixels
from repro.errors import UserError, nearest
from repro.plots import above, heat_map, image_grid, rendered, save_pixels
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job, longest_first
from repro.studies.system_table import Facts, as_text, facts_of, system_rows, write_rows
from repro.studies.systems import SEEDS, SYSTEMS, System, bank_of, draw_job, image_words, run_of, training_jobs

__all__ = ["Similarity"]

_GPU_DRAW_SECONDS, _CPU_DRAW_SECONDS = 600.0, 150.0
_GRID_ROWS = 8
_THRESHOLD_OF_DIGITS = 0.95


@dataclass(frozen=True)
class _Input:
    """One system of the comparison: one of the paper's by name, or whatever is at a path."""

    name: str
    system: System | None = None
    path: Path | None = None

    @functools.cached_property
    def kind(self) -> str:
        """``system``, ``bank``, ``model`` (a run or checkpoint) or ``images``."""
        if self.system is not None:
            return "system"
        if (self.path / MANIFEST_NAME).is_file():
            return "bank"
        is_run = (self.path / "checkpoints").is_dir() or (self.path / "run.json").is_file()
        packed = (".npz", ".zip", ".tar", ".xz", ".gz", ".bz2")
        return "model" if is_run or (self.path.is_file() and self.path.suffix not in packed) else "images"


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
        images: Folder or archive of images to train the paper's systems on instead of the scale's data, for example
            of CIFAR-10 where torchvision cannot download it.
    """

    name: ClassVar[str] = "similarity"
    figure: ClassVar[str] = "1, 6, 12, 13 and 14"
    scales: ClassVar[tuple[Scale, ...]] = get_args(Scale)

    def __init__(
        self,
        inputs: list[str] | None = None,
        seeds: str | None = None,
        descriptor: Descriptor | None = None,
        threshold: float | None = None,
        images: str | None = None,
    ) -> None:
        self.inputs = _inputs(list(SYSTEMS) if inputs is None else inputs)
        self.data = () if images is None else image_words(images)
        self.seeds, self.descriptor, self.threshold = seeds, descriptor, threshold

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """Training and drawing of the systems, each after its teacher; drawing from the given models."""
        jobs: dict[str, Job] = {}
        seeds = self._seeds(scale)
        for item in self.inputs:
            if item.kind == "system":
                system = item.system
                trained = SYSTEMS[system.weights or system.name]
                jobs |= {job.name: job for job in training_jobs(folder, trained, scale, self.data)}
                seconds = {"tiny": system.draw_seconds, "cpu": _CPU_DRAW_SECONDS}.get(scale, _GPU_DRAW_SECONDS)
                job = draw_job(folder, item.name, seeds, system.sampler, weights=trained.name, seconds=seconds)
                jobs[job.name] = job
            elif item.kind == "model":
                job = draw_job(folder, item.name, seeds, run=item.path, seconds=60.0)
                jobs[job.name] = job
        return longest_first(jobs)

    def _seeds(self, scale: Scale) -> str:
        if self.seeds is not None:
            return self.seeds
        banks = (Bank.open(item.path) for item in self.inputs if item.kind == "bank")
        first = next(banks, None)
        return SEEDS[scale] if first is None else format_seeds(first.manifest.seeds)

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """Matrices and grids as text, CSV, PNG and TensorBoard log, and a table with one row a system."""
        names = [item.name for item in self.inputs]
        banks = [_bank(folder, item) for item in self.inputs]
        descriptor, threshold = self._descriptor(banks[0])
        train = _training_images(banks)
        found = compare(banks, descriptor, train, threshold, names=names, seeds=self._common_seeds(banks))
        results, picture = folder / "results", folder / "similarity.png"
        found.write(results)
        found.to_tensorboard(results)
        facts = [_facts(folder, item, bank) for item, bank in zip(self.inputs, banks, strict=True)]
        rows = system_rows(found, facts)
        write_rows(results / "systems.csv", rows)
        save_pixels(above([rendered(figure) for figure in _pictures(found)]), picture)
        return (
            f"{as_text(found, rows)}\n\npicture: {picture}\nall pairs with intervals, matrices, grids: {results}\n"
            f"curves and images: tensorboard --logdir {folder}"
        )

    def _descriptor(self, bank: Bank) -> tuple[Descriptor | None, float | None]:
        """The descriptor and threshold asked for, else pixels above 0.95 on the digits, else the usual ones."""
        if self.descriptor is None and bank.manifest.image_shape == (1, 8, 8):
            return Pixels(), _THRESHOLD_OF_DIGITS if self.threshold is None else self.threshold
        return self.descriptor, self.threshold

    def _common_seeds(self, banks: list[Bank]) -> list[int] | str | None:
        """The seeds asked for; where images from elsewhere are compared, those that all have; else None."""
        if self.seeds is not None or all(item.kind != "images" for item in self.inputs):
            return self.seeds
        common = set.intersection(*(set(bank.manifest.seeds) for bank in banks))
        if not common:
            raise UserError("the inputs have no noise in common; draw the same seeds, or give others")
        return sorted(common)


def _inputs(given: list[str]) -> list[_Input]:
    """What to compare, under different names.

    Raises:
        UserError: fewer than two, or one that is neither a name nor a path.
    """
    if len(given) < 2:
        raise UserError(f"{len(given)} input given; name at least two: systems, banks, runs or folders of images")
    by_name = {name.lower(): system for name, system in SYSTEMS.items()}
    found: list[_Input] = []
    for text in given:
        path, system = Path(text), by_name.get(text.lower())
        if system is not None and not path.exists():
            found.append(_Input(system.name, system))
        elif path.exists():
            run = path.parent.parent if path.parent.name == "checkpoints" else path
            found.append(_Input(run.name if run.is_dir() else run.stem, path=path))
        else:
            near = nearest(text, SYSTEMS)
            guess = f"; did you mean {near}?" if near else ";"
            raise UserError(f"nothing is at {text}, and it is no system{guess} systems: {', '.join(SYSTEMS)}")
    names = [item.name for item in found]
    return [
        item if names.count(item.name) == 1 else replace(item, name=f"{item.name}-{place}")
        for place, item in enumerate(found, 1)
    ]


def _bank(folder: Path, item: _Input) -> Bank:
    if item.kind == "images":
        return Bank.from_folder(item.path)
    return Bank.open(item.path if item.kind == "bank" else bank_of(folder, item.name))


def _training_images(banks: list[Bank]) -> list[Tensor | None]:
    """Training images of each system where they are known and can be had."""
    found: list[Tensor | None] = []
    for bank in banks:
        try:
            found.append(bank.training_images())
        except UserError:
            found.append(None)
    return found


def _facts(folder: Path, item: _Input, bank: Bank) -> Facts:
    if item.kind == "system":
        own = item.system.weights or item.name
        jobs = folder / "jobs"
        return facts_of(bank, run_of(folder, own), jobs / f"fit_{own}.done", jobs / f"draw_{item.name}.done")
    if item.kind != "model":
        return facts_of(bank)
    run = item.path if item.path.is_dir() else item.path.parent.parent
    return facts_of(bank, run, draw=folder / "jobs" / f"draw_{item.name}.done")


def _pictures(found: Comparison) -> Iterator[Figure]:
    rp, mae, rows = found.scores["RP"], found.scores["MAE"], min(_GRID_ROWS, found.n)
    condition = (
        f"above the diagonal: RP, {found.descriptor['name']} > {found.threshold:g}; below: MAE score, mean difference "
        f"< {found.mae_threshold:g} of 255; n = {found.n:,}"
    )
    yield heat_map(rp.rates, found.names, "Same noise, same image", condition, mae.rates)
    images = torch.stack([bank.images[:rows] for bank in found.banks], dim=1)
    seeds = [str(seed) for seed in found.banks[0].seeds[:rows].tolist()]
    yield image_grid(images, found.names, seeds, "What each system draws", "one row a noise, one column a system")
