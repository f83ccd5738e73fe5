"""The comparison itself: checks of the banks, then counts of every pair in one pass over the noises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank, format_seeds
from repro.comparison.counting import between_scores, groups_of, metric_value, pair_scores
from repro.comparison.results import Comparison, Memorization, PairValues
from repro.descriptors import default_descriptor
from repro.descriptors.base import Descriptor, cached_features, check_images, features_of_bank
from repro.errors import UserError
from repro.files import cache_folder
from repro.metrics.functional.generalization import memorization_matches
from repro.metrics.functional.mae import check_mae_threshold
from repro.metrics.functional.similarity import check_threshold
from repro.metrics.protocol import pair_metrics, pick
from repro.noise import parse_seeds
from repro.registry import build, record_of

__all__ = ["compare"]


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
) -> Comparison:
    """Compares systems on the same noises: RP and MAE of every pair, GL of each, and the chance level beside them.

    Unconditional systems are compared image by image, and so are conditional ones, whose scores also come class by
    class (:meth:`Comparison.conditional_table`). Between an unconditional and a conditional system the score is between
    RP: whether some class gives the image. Chance levels pair each image with one of another noise and the same class.
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

    Raises:
        UserError: fewer than two banks, an incomplete one, other seeds or shapes, a threshold out of range, or
            training images of another shape.

    Example:
        >>> images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
        >>> found = compare([Bank.from_images(images), Bank.from_images(images)], "Pixels", names=["a", "b"])
        >>> found.scores["RP"].counts.tolist()
        [[50, 50], [50, 50]]
    """
    opened = [bank if isinstance(bank, Bank) else Bank.open(bank) for bank in banks]
    names = _names(opened, names)
    _check_banks(opened, names, seeds)
    if seeds is not None:
        opened = [bank.select(parse_seeds(seeds)) for bank in opened]
    _check_seeds(opened, names)
    if descriptor is None:
        descriptor = default_descriptor(opened[0].manifest.image_shape)
    elif isinstance(descriptor, str):
        descriptor = build("descriptors", descriptor)
    threshold = check_threshold(descriptor.default_threshold if threshold is None else threshold)
    mae_threshold = check_mae_threshold(mae_threshold)
    further = pair_metrics(metrics, descriptor.name)
    train_images = _train_images(train, opened, names)

    features = [features_of_bank(bank, descriptor, batch_size, device) for bank in opened]
    groups = groups_of(opened, features, control_seed)
    scores, values = pair_scores(groups, len(opened), threshold, mae_threshold, further)
    scores |= between_scores(groups, len(opened), threshold, control_seed)
    found = _Training(descriptor, batch_size, device)
    _add_training_values(values, further, opened, features, train_images, found)
    return Comparison(
        names=names,
        banks=opened,
        n=min(len(bank) for bank in opened),
        scores={name: score for name, score in scores.items() if score.pairs()},
        values=values,
        memorization=[
            None if images is None else found.memorization(own, images, threshold)
            for own, images in zip(features, train_images, strict=True)
        ],
        train=train_images,
        descriptor={
            "name": descriptor.name,
            "fingerprint": descriptor.fingerprint,
            "record": record_of(descriptor),
            "default_threshold": descriptor.default_threshold,
        },
        threshold=threshold,
        mae_threshold=mae_threshold,
        control_seed=control_seed,
    )


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

    def features(self, images: Tensor) -> Tensor:
        """Of a training set, (N, d)."""
        if id(images) not in self._known:
            self._known[id(images)] = _train_features(images, self.descriptor, self.batch_size, self.device)
        return self._known[id(images)]

    def memorization(self, own: Tensor, images: Tensor, threshold: float) -> Memorization:
        """Nearest training image of each sample, from the samples' features."""
        found = memorization_matches(own.to(self.device), self.features(images), threshold)
        return Memorization(*(part.cpu().numpy() for part in found), len(images))


def _add_training_values(
    values: Mapping[str, PairValues],
    metrics: Mapping[str, Metric],
    banks: Sequence[Bank],
    features: Sequence[Tensor],
    train: Sequence[Tensor | None],
    found: _Training,
) -> None:
    """Fills in metrics of whole sets against the training images."""
    for name, score in values.items():
        for place, images in enumerate(train):
            if score.train is not None and images is not None:
                own = pick(metrics[name], features[place], banks[place].images)
                other = pick(metrics[name], found.features, lambda images: images)(images)
                score.train[place] = metric_value(metrics[name], name, own, other)


def _train_features(images: Tensor, descriptor: Descriptor, batch_size: int | None, device: str) -> Tensor:
    if descriptor.cheap:
        return descriptor.features(images, batch_size, device, "training images")
    fingerprint = hashlib.sha256(images.contiguous().cpu().numpy().data).hexdigest()
    return cached_features(images, fingerprint, descriptor, cache_folder("features"), batch_size, device)
