"""The comparison itself: checks of the banks, then counts of every pair in one pass over the noises."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import Tensor

from repro.banks import Bank
from repro.comparison.checks import alike_banks, check_systems
from repro.comparison.counting import between_scores, check_size, groups_of, pair_scores
from repro.comparison.record import record
from repro.comparison.remarks import remarks
from repro.comparison.report import write_report
from repro.comparison.results import Conditions, Results
from repro.comparison.tables import TABLES, Row, table
from repro.comparison.text import as_text
from repro.comparison.training import (
    Training,
    add_training_values,
    listed_images,
    recorded_images,
    trained_on,
)
from repro.comparison.write import log_results, write_results
from repro.descriptors import default_descriptor
from repro.descriptors.base import Descriptor, features_of_bank
from repro.drawing.systems import systems_of
from repro.errors import unknown
from repro.metrics.protocol import pair_metrics
from repro.noise import parse_seeds
from repro.records import record_of
from repro.registry import build

__all__ = ["Comparison", "compare"]


class Comparison(Results):
    """Results that print, write and report themselves; what :func:`compare` gives back."""

    def table(self, name: str = "pairs") -> list[Row]:
        """Returns rows of a table, each with the conditions in front.

        Args:
            name: ``pairs``, ``conditional``, ``values``, ``curves``, ``paired`` or ``gl``.
        """
        if name not in TABLES:
            raise unknown("table", name, list(TABLES))
        return table(self, name)

    def record(self) -> Row:
        """Returns everything that the numbers depend on and the numbers themselves, as plain JSON data."""
        return record(self)

    def write(self, folder: str | Path, figures: bool = True) -> list[Path]:
        """Writes ``rp.csv``, ``mae.csv``, ``pairs.csv``, ``curves.csv``, ``comparison.json`` and figures.

        Where there is something to say, also ``gl.csv`` and ``nearest.npz`` (training images), ``paired.csv`` (three
        systems or more), ``conditional.csv``, ``between_rp.csv`` (conditional systems) and ``values.csv``.

        Returns:
            The files.
        """
        return write_results(self, Path(folder), figures)

    def report(self, path: str | Path, megabytes: float = 10.0) -> Path:
        """Writes one self-contained HTML page; see :func:`repro.comparison.report.write_report`."""
        return write_report(self, Path(path), megabytes)

    def to_tensorboard(self, logdir: str | Path, step: int = 0) -> None:
        """Adds rates and figures to a TensorBoard log."""
        log_results(self, Path(logdir), step)

    def remarks(self) -> list[str]:
        """Returns what must be known before the numbers are believed, in sentences; empty where nothing is wrong."""
        return remarks(self)

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        """A line that fits a notebook's cell."""
        scores = ", ".join(
            f"{score.name} {np.nanmin(rates):.3f}-{np.nanmax(rates):.3f}"
            for score in self.scores.values()
            if (rates := np.array([score.rates[pair] for pair in score.pairs()])).size
        )
        return f"Comparison({len(self.names)} systems, {self.noises:,} noises, {self.descriptor['name']}: {scores})"

    def _repr_html_(self) -> str:
        """The printed tables, for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"


def compare(
    systems: Sequence[Any] | Mapping[str, Any],
    descriptor: Descriptor | str | None = None,
    train: Tensor | Bank | Sequence[Tensor | Bank | None] | Literal["recorded"] | None = None,
    threshold: float | None = None,
    mae_threshold: float = 15.0,
    names: Sequence[str] | None = None,
    control_seed: int = 0,
    metrics: Sequence[Any] = (),
    seeds: str | Sequence[int] | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    confidence: float = 0.95,
    paired: Sequence[str] | None = None,
    task: str | None = None,
    guidance: float = 1.0,
    classes: str | None = None,
) -> Comparison:
    """Compares systems on the same noises: RP and MAE of every pair, GL of each, and the chance level beside them.

    Unconditional systems are compared image by image, and so are conditional ones, whose scores also come class by
    class (the table ``conditional``). Between an unconditional and a conditional system the score is between RP:
    whether some class gives the image. Chance levels pair each image with one of another noise and the same class.
    Intervals take images as independent, those of one noise under several classes too.

    Args:
        systems: Two or more, mixed: banks, models, paths (``path`` or ``name=path``) of banks, runs, checkpoints,
            released files, folders, archives or arrays (.npz, .npy) of images, and tensors or arrays of images; or a
            mapping from names. Models draw, unless their run has a bank of the seeds.
        descriptor: A descriptor or its registered name; :func:`~repro.descriptors.default_descriptor` when left out.
        train: Training images, uint8 (N, C, H, W), or a bank: of all systems, or a list with one or None for each;
            ``recorded`` takes those that each system's bank names, where they can be had.
        threshold: Of RP and GL, in [-1, 1]; the descriptor's own when left out.
        mae_threshold: Of MAE, in [0, 255].
        names: Of the systems; those of the folders when left out.
        control_seed: Number of the fixed shuffle that the control pairs noises by.
        metrics: Further metrics of two systems, as registered names or objects: any that
            :mod:`repro.metrics.protocol` can feed, which includes other ``torchmetrics.Metric`` of two sets of images.
        seeds: Compare these noises only, for example ``0-99``; see :func:`repro.drawing.systems_of`.
        device: Where descriptors run.
        batch_size: Images a batch of the descriptor.
        confidence: Coverage of the intervals, in (0, 1).
        paired: Names of systems A for which "is A more alike to B than to C?" is tested for all B and C; all systems
            where they are at most 12 when left out, as the tests grow with the cube of their number.
        task: What models draw for each noise.
        guidance: Scale of classifier-free guidance of models with classes that draw; 1 is none.
        classes: Which classes those draw, for example ``0-4,7``; by default all.

    Raises:
        UserError: fewer than two banks, an incomplete one, other seeds or shapes, a threshold or confidence out of
            range, or training images of another shape.

    Example:
        >>> import torch
        >>> images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
        >>> result = compare({"a": images, "b": images.numpy()}, "Pixels")
        >>> result.scores["RP"].counts.tolist()
        [[50, 50], [50, 50]]
    """
    if isinstance(descriptor, str):
        descriptor = cast(Descriptor, build("descriptors", descriptor))
    chosen = systems_of(systems, names, seeds, task, guidance, classes)
    names, manifests = [system.name for system in chosen], [system.manifest for system in chosen]
    check_systems(chosen, guidance != 1 or classes is not None)
    descriptor = descriptor or default_descriptor(manifests[0].image_shape)
    descriptor.check_shape(manifests[0].image_shape)
    listed = listed_images(None if isinstance(train, str) else train, manifests, names)
    size = len(manifests[0].seeds if seeds is None else parse_seeds(seeds))
    conditions = Conditions(
        descriptor=_facts(descriptor),
        threshold=descriptor.default_threshold if threshold is None else threshold,
        mae_threshold=mae_threshold,
        n=size * min(manifest.images_per_seed for manifest in manifests),
        data=trained_on(manifests, listed),
        control_seed=control_seed,
        confidence=confidence,
    )
    check_size(len(chosen), size * max(manifest.images_per_seed for manifest in manifests))
    for name in paired or ():
        if name not in names:
            raise unknown("system", name, names)
    further = pair_metrics(metrics, descriptor.name)

    banks = alike_banks([system.open() for system in chosen], names, seeds)
    notes = [f"{system.name}: {system.note}" for system in chosen if system.note]
    if isinstance(train, str):
        listed, reasons = recorded_images(banks, names)
        conditions = replace(conditions, data=trained_on(manifests, listed))
    else:
        reasons = []
    features = [features_of_bank(bank, descriptor, batch_size, device) for bank in banks]
    groups = groups_of(banks, features, control_seed)
    scores, values = pair_scores(groups, len(banks), conditions, further)
    scores |= between_scores(groups, len(banks), conditions)
    training = Training(descriptor, batch_size, device)
    add_training_values(values, further, banks, features, listed, training)
    return Comparison(
        names=names,
        banks=banks,
        conditions=conditions,
        scores={name: score for name, score in scores.items() if score.pairs()},
        values=values,
        memorization=[
            None if images is None else training.memorization(own, images, conditions.threshold)
            for own, images in zip(features, listed, strict=True)
        ],
        train=listed,
        paired=None if paired is None else tuple(dict.fromkeys(paired)),
        notes=notes,
        warnings=[*_warnings(descriptor, banks, names), *reasons],
    )


def _warnings(descriptor: Descriptor, banks: Sequence[Bank], names: Sequence[str]) -> list[str]:
    """What the descriptor says about the images of each bank, once where it says the same."""
    named: dict[str, list[str]] = {}
    for bank, name in zip(banks, names, strict=True):
        if (line := descriptor.warning(bank.images)) is not None:
            named.setdefault(line, []).append(name)
    return [line if len(of) == len(banks) else f"{', '.join(of)}: {line}" for line, of in named.items()]


def _facts(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "name": descriptor.name,
        "fingerprint": descriptor.fingerprint,
        "record": record_of(descriptor),
        "default_threshold": descriptor.default_threshold,
    }
