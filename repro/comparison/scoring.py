"""The comparison itself: checks of the banks, then counts of every pair in one pass over the noises."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from repro.banks import Bank, format_seeds
from repro.comparison.results import Comparison, Memorization, PairCounts
from repro.descriptors.base import Descriptor, cached_features, check_images, features_of_bank
from repro.errors import UserError
from repro.files import cache_folder
from repro.metrics.functional.generalization import memorization_matches
from repro.metrics.functional.mae import absolute_difference_matrix, check_mae_threshold
from repro.metrics.functional.similarity import check_threshold, cosine_matrix, exceeds
from repro.noise import parse_seeds
from repro.registry import build, record_of

__all__ = ["compare", "default_descriptor", "derangement"]

_ELEMENTS = 1 << 22


def default_descriptor() -> Descriptor:
    """SSCD when its weights are in this user's cache, else ``Pixels``."""
    from repro.descriptors.pixels import Pixels
    from repro.descriptors.sscd import SSCD

    return SSCD() if SSCD.available() else Pixels()


def derangement(n: int, seed: int) -> Tensor:
    """A fixed shuffle of n >= 2 places that leaves none where it was: a random cycle through all of them.

    Example:
        >>> bool((derangement(1000, 0) == torch.arange(1000)).any())
        False
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = torch.empty_like(order)
    shuffled[order] = order.roll(-1)
    return shuffled


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

    Args:
        banks: Two or more banks or their folders, with the same seeds and image shape.
        descriptor: A descriptor or its registered name; :func:`default_descriptor` when left out.
        train: Training images, uint8 (N, C, H, W), or a bank: of all systems, or a list with one or None for each.
        threshold: Of RP and GL, in [-1, 1]; the descriptor's own when left out.
        mae_threshold: Of MAE, in [0, 255].
        names: Of the systems; those of the folders when left out.
        control_seed: Number of the fixed shuffle that the control pairs noises by.
        metrics: Further pair metrics, as registered names or :class:`~repro.metrics.base.PairMetric` objects.
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
        descriptor = default_descriptor()
    elif isinstance(descriptor, str):
        descriptor = build("descriptors", descriptor)
    threshold = check_threshold(descriptor.default_threshold if threshold is None else threshold)
    mae_threshold = check_mae_threshold(mae_threshold)
    extra_metrics = _metrics(metrics)
    train_images = _train_images(train, opened, names)

    features = [features_of_bank(bank, descriptor, batch_size, device) for bank in opened]
    shuffle = derangement(len(opened[0]), control_seed) if len(opened[0]) > 1 else None
    scores = {"RP": _rp_counts(features, threshold, shuffle), "MAE": _mae_counts(opened, mae_threshold, shuffle)}
    for name, metric in extra_metrics.items():
        inputs = features if metric.inputs == "features" else [bank.images for bank in opened]
        scores[name] = _metric_counts(name, metric, inputs, opened[0].seeds, shuffle)
    return Comparison(
        names=names,
        banks=opened,
        n=len(opened[0]),
        scores=scores,
        memorization=_memorization(features, train_images, descriptor, threshold, batch_size, device),
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
        if not bank.complete and seeds is None:
            total = len(bank.manifest.seeds) * bank.manifest.images_per_seed
            raise UserError(
                f"bank {name!r} is incomplete: {len(bank)} of {total} images; continue it with repro predict, "
                "or compare the seeds that all banks have with --seeds"
            )


def _check_seeds(banks: Sequence[Bank], names: Sequence[str]) -> None:
    first = banks[0]
    for bank, name in zip(banks, names, strict=True):
        if not torch.equal(bank.seeds, first.seeds):
            common = sorted(set(bank.seeds.tolist()) & set(first.seeds.tolist()))
            hint = f"compare those in common with --seeds {format_seeds(common)[:60]}, or " if common else ""
            raise UserError(
                f"bank {name!r} holds seeds {_brief(bank)}, {names[0]!r} {_brief(first)}; "
                f"{hint}draw the same seeds with repro predict --seeds"
            )
        if (bank.labels is None) != (first.labels is None) or (
            bank.labels is not None and not torch.equal(bank.labels, first.labels)
        ):
            raise UserError(f"banks {name!r} and {names[0]!r} were drawn under different labels; draw them alike")


def _brief(bank: Bank) -> str:
    text = format_seeds(bank.seeds[:: bank.manifest.images_per_seed].tolist())
    return text if len(text) <= 40 else f"{text[:37]}..."


def _metrics(metrics: Sequence[Any]) -> dict[str, Any]:
    if not metrics:
        return {}
    from repro.metrics.base import PairMetric

    built = [build("metrics", metric) if isinstance(metric, str) else metric for metric in metrics]
    for metric in built:
        if not isinstance(metric, PairMetric):
            raise UserError(f"metric {type(metric).__name__} compares no pairs; a comparison takes PairMetric classes")
    return {type(metric).__name__: metric for metric in built}


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


def _over_noises(systems: Sequence[Tensor], count: int, title: str) -> Any:
    """Slices of noises such that all pairs of all systems fit in memory, with a progress bar."""
    step = max(1, _ELEMENTS // (len(systems) * systems[0][0].numel()))
    starts = range(0, count, step)
    return (slice(start, start + step) for start in tqdm(starts, desc=title, unit="chunk", delay=2.0, leave=False))


def _symmetric(counts: Tensor) -> np.ndarray:
    upper = counts.triu().numpy()
    return upper + np.triu(upper, 1).T


def _rp_counts(features: Sequence[Tensor], threshold: float, shuffle: Tensor | None) -> PairCounts:
    systems, n = len(features), len(features[0])
    counts, control = torch.zeros(2, systems, systems, dtype=torch.int64)
    for rows in _over_noises(features, n, "RP"):
        first = torch.stack([item[rows] for item in features], dim=1)
        counts += exceeds(cosine_matrix(first), threshold).sum(0)
        if shuffle is not None:
            second = torch.stack([item[shuffle[rows]] for item in features], dim=1)
            control += exceeds(cosine_matrix(first, second), threshold).sum(0)
    return PairCounts("RP", _symmetric(counts), None if shuffle is None else _symmetric(control), n)


def _mae_counts(banks: Sequence[Bank], threshold: float, shuffle: Tensor | None) -> PairCounts:
    pixels = [bank.images.flatten(1) for bank in banks]
    systems, n = len(pixels), len(pixels[0])
    counts, control = torch.zeros(2, systems, systems, dtype=torch.int64)
    for rows in _over_noises(pixels, n, "MAE"):
        first = torch.stack([item[rows] for item in pixels], dim=1)
        counts += (absolute_difference_matrix(first) < threshold).sum(0)
        if shuffle is not None:
            second = torch.stack([item[shuffle[rows]] for item in pixels], dim=1)
            control += (absolute_difference_matrix(first, second) < threshold).sum(0)
    return PairCounts("MAE", _symmetric(counts), None if shuffle is None else _symmetric(control), n)


def _metric_counts(
    name: str, metric: Any, inputs: Sequence[Tensor], seeds: Tensor, shuffle: Tensor | None
) -> PairCounts:
    systems, n = len(inputs), len(inputs[0])
    counts, control = torch.zeros(2, systems, systems, dtype=torch.int64)
    for first in range(systems):
        for second in range(first, systems):
            counts[first, second] = metric.match(inputs[first], inputs[second]).sum()
            if shuffle is not None:
                control[first, second] = metric.match(inputs[first], inputs[second][shuffle]).sum()
    return PairCounts(name, _symmetric(counts), None if shuffle is None else _symmetric(control), n)


def _memorization(
    features: Sequence[Tensor],
    train: Sequence[Tensor | None],
    descriptor: Descriptor,
    threshold: float,
    batch_size: int | None,
    device: str,
) -> list[Memorization | None]:
    of_train: dict[int, Tensor] = {}
    found: list[Memorization | None] = []
    for own, images in zip(features, train, strict=True):
        if images is None:
            found.append(None)
            continue
        if id(images) not in of_train:
            of_train[id(images)] = _train_features(images, descriptor, batch_size, device)
        copies, similarity, index = memorization_matches(own.to(device), of_train[id(images)], threshold)
        found.append(Memorization(copies.cpu().numpy(), similarity.cpu().numpy(), index.cpu().numpy(), len(images)))
    return found


def _train_features(images: Tensor, descriptor: Descriptor, batch_size: int | None, device: str) -> Tensor:
    if descriptor.cheap:
        return descriptor.features(images, batch_size, device, "training images")
    fingerprint = hashlib.sha256(images.contiguous().cpu().numpy().data).hexdigest()
    return cached_features(images, fingerprint, descriptor, cache_folder("features"), batch_size, device)
