"""Training images of the systems that are compared: which, how near samples come, and what that is by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank
from repro.banks.manifest import Manifest
from repro.comparison.results import Memorization, PairValues
from repro.descriptors.base import Descriptor, cached_features, check_images
from repro.errors import UserError
from repro.files import cache_folder
from repro.metrics.functional.generalization import memorization_matches, nearest_other
from repro.metrics.functional.similarity import nearest
from repro.metrics.protocol import metric_value, pick

__all__ = ["RECORDED", "Training", "add_training_values", "listed_images", "recorded_images", "trained_on"]

RECORDED = "recorded"
_CONTROLS = 1000
_LOADING = ("batch_size", "subset_seed", "seed", "holdout", "workers", "in_memory", "cache")


def trained_on(manifests: Sequence[Manifest], train: Sequence[Tensor | None]) -> str:
    """Returns what the systems were trained on, for people, such as ``trained on Digits(subset=32): 32 images``."""
    names = []
    for manifest, images in zip(manifests, train, strict=True):
        data = manifest.data or {}
        chosen = {key: value for key, value in data.get("args", {}).items() if key not in _LOADING}
        options = ", ".join(f"{key}={value}" for key, value in chosen.items() if value not in (None, False))
        name = f"{data.get('name', '')}({options})" if options else str(data.get("name", ""))
        size = "" if images is None else f"{len(images):,} images"
        names.append(": ".join(part for part in (name[:80], size) if part))
    different = list(dict.fromkeys(name for name in names if name))
    if not different:
        return "training data not recorded"
    return f"trained on {'; '.join(different[:3])}{' and others' if len(different) > 3 else ''}"


def recorded_images(banks: Sequence[Bank], names: Sequence[str]) -> tuple[list[Tensor | None], list[str]]:
    """Returns the training images that the banks name, where they can be had; and why not, where not, once a reason."""
    images: list[Tensor | None] = []
    reasons: dict[str, list[str]] = {}
    for bank, name in zip(banks, names, strict=True):
        images.append(None)
        try:
            images[-1] = bank.training_images()
        except UserError as error:
            reasons.setdefault(str(error), []).append(name)
    return images, [f"no GL of {', '.join(of)}: {reason}" for reason, of in reasons.items()]


def listed_images(train: Any, manifests: Sequence[Manifest], names: Sequence[str]) -> list[Tensor | None]:
    """Returns the training images of each system from what was given for all or one by one.

    Raises:
        UserError: another number of sets than systems, or images of another type or shape than the samples.
    """
    listed = list(train) if isinstance(train, list | tuple) else [train] * len(manifests)
    if len(listed) != len(manifests):
        raise UserError(
            f"{len(listed)} training sets for {len(manifests)} systems; give one for all, or one (or None) a system"
        )
    images = [each.images if isinstance(each, Bank) else each for each in listed]
    for each, manifest, name in zip(images, manifests, names, strict=True):
        if each is None:
            continue
        check_images(each)
        if tuple(each.shape[1:]) != manifest.image_shape:
            raise UserError(
                f"training images of {name!r} have shape {tuple(each.shape[1:])}, its samples "
                f"{manifest.image_shape}; give the training set at the size that was trained on"
            )
    return images


class Training:
    """Features of training sets, each computed once."""

    def __init__(self, descriptor: Descriptor, batch_size: int | None, device: str) -> None:
        self.descriptor, self.batch_size, self.device = descriptor, batch_size, device
        self._known: dict[int, Tensor] = {}
        self._chance: dict[int, dict[str, np.ndarray]] = {}

    def features(self, images: Tensor) -> Tensor:
        """Returns features of a training set, (N, d)."""
        if id(images) not in self._known:
            self._known[id(images)] = _train_features(images, self.descriptor, self.batch_size, self.device)
        return self._known[id(images)]

    def memorization(self, own: Tensor, images: Tensor, threshold: float) -> Memorization:
        """Returns the nearest training image of each sample, from the samples' features."""
        matches = memorization_matches(own.to(self.device), self.features(images), threshold)
        copies, similarity, index = (part.cpu().numpy() for part in matches)
        return Memorization(copies, similarity, index, len(images), self.chance(images), threshold)

    def chance(self, images: Tensor) -> dict[str, np.ndarray]:
        """Says how near images that no system drew come to a training set; see :class:`Memorization`."""
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


def add_training_values(
    values: Mapping[str, PairValues],
    metrics: Mapping[str, Metric],
    banks: Sequence[Bank],
    features: Sequence[Tensor],
    train: Sequence[Tensor | None],
    training: Training,
) -> None:
    """Fills in metrics of whole sets against the training images."""
    for name, score in values.items():
        for index, images in enumerate(train):
            if score.train is not None and images is not None:
                own = pick(metrics[name], features[index], banks[index].images)
                other = pick(metrics[name], training.features, lambda images: images)(images)
                score.train[index] = metric_value(metrics[name], name, own, other)


def _train_features(images: Tensor, descriptor: Descriptor, batch_size: int | None, device: str) -> Tensor:
    if descriptor.cheap:
        return descriptor.features(images, batch_size, device, "training images")
    fingerprint = hashlib.sha256(images.contiguous().cpu().numpy().data).hexdigest()
    return cached_features(images, fingerprint, descriptor, cache_folder("features"), batch_size, device)
