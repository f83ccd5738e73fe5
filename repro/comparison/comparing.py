"""The comparison itself: checks of the banks, then counts of every pair in one pass over the noises."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank, format_seeds
from repro.comparison.counting import between_scores, check_size, groups_of, pair_scores
from repro.comparison.record import record
from repro.comparison.remarks import remarks
from repro.comparison.report import write_report
from repro.comparison.results import Conditions, Memorization, PairValues, Results
from repro.comparison.tables import TABLES, Row, table
from repro.comparison.text import as_text
from repro.comparison.write import log_results, write_results
from repro.descriptors import default_descriptor
from repro.descriptors.base import Descriptor, cached_features, check_images, features_of_bank
from repro.errors import UserError, unknown
from repro.files import cache_folder
from repro.metrics.functional.generalization import memorization_matches, nearest_other
from repro.metrics.functional.similarity import nearest
from repro.metrics.protocol import metric_value, pair_metrics, pick
from repro.noise import parse_seeds
from repro.records import record_of
from repro.registry import build

__all__ = ["Comparison", "compare"]


class Comparison(Results):
    """Results that print, write and report themselves; what :func:`compare` gives back."""

    def table(self, name: str = "pairs") -> list[Row]:
        """Rows of a table, each with the conditions in front.

        Args:
            name: ``pairs``, ``conditional``, ``values``, ``curves``, ``paired`` or ``gl``.
        """
        if name not in TABLES:
            raise unknown("table", name, list(TABLES))
        return table(self, name)

    def record(self) -> Row:
        """Everything that the numbers depend on and the numbers themselves, as plain JSON data."""
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
        """What must be known before the numbers are believed, in sentences; empty where nothing is wrong."""
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
    banks: Sequence[Bank | str | Path],
    descriptor: Descriptor | str | None = None,
    train: Tensor | Bank | Sequence[Tensor | Bank | None] | None = None,
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
) -> Comparison:
    """Compares systems on the same noises: RP and MAE of every pair, GL of each, and the chance level beside them.

    Unconditional systems are compared image by image, and so are conditional ones, whose scores also come class by
    class (the table ``conditional``). Between an unconditional and a conditional system the score is between RP:
    whether some class gives the image. Chance levels pair each image with one of another noise and the same class.
    Intervals take images as independent, those of one noise under several classes too.

    Args:
        banks: Two or more banks or their folders, with the same seeds and image shape.
        descriptor: A descriptor or its registered name; :func:`~repro.descriptors.default_descriptor` when left out.
        train: Training images, uint8 (N, C, H, W), or a bank: of all systems, or a list with one or None for each.
        threshold: Of RP and GL, in [-1, 1]; the descriptor's own when left out.
        mae_threshold: Of MAE, in [0, 255].
        names: Of the systems; those of the folders when left out.
        control_seed: Number of the fixed shuffle that the control pairs noises by.
        metrics: Further metrics of two systems, as registered names or objects: any that
            :mod:`repro.metrics.protocol` can feed, which includes other ``torchmetrics.Metric`` of two sets of images.
        seeds: Compare these noises only, for example ``0-99``.
        device: Where descriptors run.
        batch_size: Images a batch of the descriptor.
        confidence: Coverage of the intervals, in (0, 1).
        paired: Names of systems A for which "is A more alike to B than to C?" is tested for all B and C; all systems
            where they are at most 12 when left out, as the tests grow with the cube of their number.

    Raises:
        UserError: fewer than two banks, an incomplete one, other seeds or shapes, a threshold or confidence out of
            range, or training images of another shape.

    Example:
        >>> images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
        >>> result = compare([Bank.from_images(images), Bank.from_images(images)], "Pixels", names=["a", "b"])
        >>> result.scores["RP"].counts.tolist()
        [[50, 50], [50, 50]]
    """
    opened = [bank if isinstance(bank, Bank) else Bank.open(bank) for bank in banks]
    names = _names(opened, names)
    _check_banks(opened, names, seeds)
    if seeds is not None:
        opened = [bank.select(parse_seeds(seeds)) for bank in opened]
    _check_seeds(opened, names)
    check_size(len(opened), max(len(bank) for bank in opened))
    for name in paired or ():
        if name not in names:
            raise unknown("system", name, names)
    if descriptor is None:
        descriptor = default_descriptor(opened[0].manifest.image_shape)
    elif isinstance(descriptor, str):
        descriptor = build("descriptors", descriptor)
    train_images = _train_images(train, opened, names)
    conditions = Conditions(
        descriptor=_facts(descriptor),
        threshold=descriptor.default_threshold if threshold is None else threshold,
        mae_threshold=mae_threshold,
        n=min(len(bank) for bank in opened),
        data=_data_name(opened, train_images),
        control_seed=control_seed,
        confidence=confidence,
    )
    further = pair_metrics(metrics, descriptor.name)

    features = [features_of_bank(bank, descriptor, batch_size, device) for bank in opened]
    groups = groups_of(opened, features, control_seed)
    scores, values = pair_scores(groups, len(opened), conditions, further)
    scores |= between_scores(groups, len(opened), conditions)
    training = _Training(descriptor, batch_size, device)
    _add_training_values(values, further, opened, features, train_images, training)
    return Comparison(
        names=names,
        banks=opened,
        conditions=conditions,
        scores={name: score for name, score in scores.items() if score.pairs()},
        values=values,
        memorization=[
            None if images is None else training.memorization(own, images, conditions.threshold)
            for own, images in zip(features, train_images, strict=True)
        ],
        train=train_images,
        paired=None if paired is None else tuple(dict.fromkeys(paired)),
        warnings=_warnings(descriptor, opened, names),
    )


def _warnings(descriptor: Descriptor, banks: Sequence[Bank], names: Sequence[str]) -> list[str]:
    """What the descriptor says about the images of each bank, once where it says the same."""
    said: dict[str, list[str]] = {}
    for bank, name in zip(banks, names, strict=True):
        if (line := descriptor.warning(bank.images)) is not None:
            said.setdefault(line, []).append(name)
    return [line if len(of) == len(banks) else f"{', '.join(of)}: {line}" for line, of in said.items()]


def _facts(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "name": descriptor.name,
        "fingerprint": descriptor.fingerprint,
        "record": record_of(descriptor),
        "default_threshold": descriptor.default_threshold,
    }


_CONTROLS = 1000
_LOADING = ("batch_size", "subset_seed", "seed", "holdout", "workers", "in_memory", "cache")


def _data_name(banks: Sequence[Bank], train: Sequence[Tensor | None]) -> str:
    """What the systems were trained on, for people, such as ``trained on Digits(subset=32): 32 images``."""
    names = []
    for bank, images in zip(banks, train, strict=True):
        data = bank.manifest.data or {}
        chosen = {key: value for key, value in data.get("args", {}).items() if key not in _LOADING}
        said = ", ".join(f"{key}={value}" for key, value in chosen.items() if value not in (None, False))
        name = f"{data.get('name', '')}({said})" if said else str(data.get("name", ""))
        size = "" if images is None else f"{len(images):,} images"
        names.append(": ".join(part for part in (name[:80], size) if part))
    different = list(dict.fromkeys(name for name in names if name))
    if not different:
        return "training data not recorded"
    return f"trained on {'; '.join(different[:3])}{' and others' if len(different) > 3 else ''}"


def _names(banks: Sequence[Bank], names: Sequence[str] | None) -> list[str]:
    if len(banks) < 2:
        raise UserError(f"{len(banks)} bank given; name at least two: repro compare BANK BANK ...")
    if names is not None:
        if len(names) != len(banks) or len(set(names)) != len(names):
            raise UserError(f"{len(set(names))} different names for {len(banks)} banks; give one name a bank")
        return [str(name) for name in names]
    plain = [bank.name for bank in banks]
    if len(set(plain)) < len(plain):
        parents = [bank.path.resolve().parent.name if bank.path else "" for bank in banks]
        plain = [f"{parent}/{name}" if parent else name for parent, name in zip(parents, plain, strict=True)]
    if len(set(plain)) < len(plain):
        plain = [f"{name} ({place})" for place, name in enumerate(plain, 1)]
    return plain


def _check_banks(banks: Sequence[Bank], names: Sequence[str], seeds: object) -> None:
    first = banks[0]
    for bank, name in zip(banks, names, strict=True):
        if bank.manifest.image_shape != first.manifest.image_shape:
            raise UserError(
                f"bank {name!r} holds images of shape {bank.manifest.image_shape}, {names[0]!r} of "
                f"{first.manifest.image_shape}; compare banks of one shape"
            )
        for key in first.manifest.extra.keys() & bank.manifest.extra.keys():
            there, here = (json.dumps(each.manifest.extra[key])[:60] for each in (first, bank))
            if first.manifest.extra[key] != bank.manifest.extra[key]:
                raise UserError(
                    f"{key.replace('_', ' ')} of bank {name!r} is {here}, of {names[0]!r} {there}; draw them alike"
                )
        if not bank.complete and seeds is None:
            total = len(bank.manifest.seeds) * bank.manifest.images_per_seed
            raise UserError(
                f"bank {name!r} is incomplete: {len(bank)} of {total} images; continue it with repro predict, "
                "or compare the seeds that all banks have with --seeds"
            )


def _check_seeds(banks: Sequence[Bank], names: Sequence[str]) -> None:
    first = banks[0]
    conditional = next(((bank, name) for bank, name in zip(banks, names, strict=True) if bank.labels is not None), None)
    for bank, name in zip(banks, names, strict=True):
        if _noises(bank) != _noises(first):
            common = sorted(set(bank.seeds.tolist()) & set(first.seeds.tolist()))
            hint = f"compare those in common with --seeds {format_seeds(common)[:60]}, or " if common else ""
            raise UserError(
                f"bank {name!r} holds seeds {_brief(bank)}, {names[0]!r} {_brief(first)}; "
                f"{hint}draw the same seeds with repro predict --seeds"
            )
        if bank.labels is not None and not torch.equal(bank.labels, conditional[0].labels):
            raise UserError(f"banks {name!r} and {conditional[1]!r} were drawn under different labels; draw them alike")


def _noises(bank: Bank) -> list[int]:
    return bank.seeds[:: bank.manifest.images_per_seed].tolist()


def _brief(bank: Bank) -> str:
    text = format_seeds(_noises(bank))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _train_images(train: Any, banks: Sequence[Bank], names: Sequence[str]) -> list[Tensor | None]:
    listed = list(train) if isinstance(train, list | tuple) else [train] * len(banks)
    if len(listed) != len(banks):
        raise UserError(
            f"{len(listed)} training sets for {len(banks)} banks; give one for all, or one (or None) a bank"
        )
    images = [given.images if isinstance(given, Bank) else given for given in listed]
    for given, bank, name in zip(images, banks, names, strict=True):
        if given is None:
            continue
        check_images(given)
        if tuple(given.shape[1:]) != bank.manifest.image_shape:
            raise UserError(
                f"training images of {name!r} have shape {tuple(given.shape[1:])}, its samples "
                f"{bank.manifest.image_shape}; give the training set at the size that was trained on"
            )
    return images


class _Training:
    """Features of training sets, each computed once."""

    def __init__(self, descriptor: Descriptor, batch_size: int | None, device: str) -> None:
        self.descriptor, self.batch_size, self.device = descriptor, batch_size, device
        self._known: dict[int, Tensor] = {}
        self._chance: dict[int, dict[str, np.ndarray]] = {}

    def features(self, images: Tensor) -> Tensor:
        """Of a training set, (N, d)."""
        if id(images) not in self._known:
            self._known[id(images)] = _train_features(images, self.descriptor, self.batch_size, self.device)
        return self._known[id(images)]

    def memorization(self, own: Tensor, images: Tensor, threshold: float) -> Memorization:
        """Nearest training image of each sample, from the samples' features."""
        matches = memorization_matches(own.to(self.device), self.features(images), threshold)
        return Memorization(*(part.cpu().numpy() for part in matches), len(images), self.chance(images), threshold)

    def chance(self, images: Tensor) -> dict[str, np.ndarray]:
        """How near images that no system drew come to a training set; see :class:`Memorization`."""
        if id(images) not in self._chance:
            known, count = self.features(images), min(_CONTROLS, len(images))
            shuffled = _shuffled_pixels(images[torch.linspace(0, len(images) - 1, count).long()])
            noise = self.descriptor.features(shuffled, self.batch_size, self.device)
            sets = {"unseen": nearest_other(known, count), "noise": nearest(noise, known)[0]} if count > 1 else {}
            self._chance[id(images)] = {kind: similarity.cpu().numpy() for kind, similarity in sets.items()}
        return self._chance[id(images)]


def _shuffled_pixels(images: Tensor) -> Tensor:
    """Images with their pixels in another order, each in its own: the same colours, no content."""
    flat = images.flatten(2)
    order = torch.rand(len(flat), flat.shape[2], generator=torch.Generator().manual_seed(0)).argsort(1)
    return flat.gather(2, order[:, None].expand_as(flat)).view_as(images)


def _add_training_values(
    values: Mapping[str, PairValues],
    metrics: Mapping[str, Metric],
    banks: Sequence[Bank],
    features: Sequence[Tensor],
    train: Sequence[Tensor | None],
    training: _Training,
) -> None:
    """Fills in metrics of whole sets against the training images."""
    for name, score in values.items():
        for place, images in enumerate(train):
            if score.train is not None and images is not None:
                own = pick(metrics[name], features[place], banks[place].images)
                other = pick(metrics[name], training.features, lambda images: images)(images)
                score.train[place] = metric_value(metrics[name], name, own, other)


def _train_features(images: Tensor, descriptor: Descriptor, batch_size: int | None, device: str) -> Tensor:
    if descriptor.cheap:
        return descriptor.features(images, batch_size, device, "training images")
    fingerprint = hashlib.sha256(images.contiguous().cpu().numpy().data).hexdigest()
    return cached_features(images, fingerprint, descriptor, cache_folder("features"), batch_size, device)
