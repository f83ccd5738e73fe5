"""GL: how often a sample is no copy of a training image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.metrics.functional.copies import have_copies
from repro.metrics.functional.similarity import (
    TRAIN_AT_ONCE,
    as_features,
    check_threshold,
    compared_dtype,
    cosine_matrix,
    exceeds,
    nearest,
)

__all__ = ["generalization_score", "memorization_matches", "nearest_other"]


def memorization_matches(features: Any, train_features: Any, threshold: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Says which samples are copies of a training image: max_y M(x_i, y) > threshold, strictly.

    Args:
        features: Floating (n, d) features or uint8 (n, C, H, W) images of the samples.
        train_features: The same of the training set.
        threshold: Similarity in [-1, 1].

    Returns:
        Copies, bool (n,); similarity to the nearest training image, (n,); its index, int64 (n,).

    Raises:
        UserError: as :func:`~repro.metrics.functional.similarity.nearest`, or a threshold outside [-1, 1].
    """
    threshold = check_threshold(threshold)
    similarity, index = nearest(features, train_features)
    return exceeds(similarity, threshold), similarity, index


@torch.no_grad()
def nearest_other(train_features: Any, most: int = 1000) -> Tensor:
    r"""Computes the similarity of training images to the nearest other training image: what GL is by chance.

    Images of the same data that a model has not seen are about as near to the training set as its own images are to
    each other. So 1 minus the share of these similarities above the threshold is the GL of a model that draws fresh
    images of the data, and GL far above it says that samples do not look like the data.

    Args:
        train_features: Floating (N, d) features or uint8 (N, C, H, W) images of the training set.
        most: At most so many training images, evenly over the set, are looked at.

    Returns:
        Shape (min(N, most),), in the features' precision, at least float32; empty for a single training image.

    Raises:
        UserError: as :func:`~repro.metrics.functional.similarity.as_features`.

    Example:
        >>> nearest_other(torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])).tolist()
        [0.6000000238418579, 0.800000011920929, 0.800000011920929]
    """
    train = as_features(train_features, "train_features")
    if len(train) < 2:
        return train.new_empty(0)
    chosen = torch.linspace(0, len(train) - 1, min(most, len(train)), dtype=torch.float64).round().long()
    best = train.new_full((len(chosen),), -1.0, dtype=compared_dtype(train))
    for first in range(0, len(train), TRAIN_AT_ONCE):
        similarity = cosine_matrix(train[chosen][None], train[first : first + TRAIN_AT_ONCE][None])[0]
        own = chosen - first
        inside = ((own >= 0) & (own < similarity.shape[1])).nonzero().flatten()
        similarity[inside, own[inside]] = -1.0  # each with itself
        best = torch.maximum(best, similarity.amax(1))
    return best


def generalization_score(features: Any, train_features: Any, threshold: float = 0.6) -> float:
    r"""Computes the GL score of a model: the share of its samples that are no copy of a training image.

    .. math:: \mathrm{GL} = 1 - P\Big(\max_{y} M(x, y) > \tau\Big)

    0 says that every sample is a training image, 1 that none is. Bounded memory, exact counts; see
    :func:`~repro.metrics.functional.copies.have_copies`. :func:`memorization_matches` also gives the nearest training
    image of each sample, in about the time of a float32 product of all pairs.

    Args:
        features: Floating (n, d) features or uint8 (n, C, H, W) images of the samples.
        train_features: The same of the training set, at least one.
        threshold: tau in [-1, 1]; strict. The paper takes 0.6 for SSCD.

    Returns:
        Rate in [0, 1].

    Raises:
        UserError: as :func:`~repro.metrics.functional.copies.have_copies`.

    Source: Zhang et al. 2024 (arXiv:2310.05264), section 3.

    Example:
        >>> import torch
        >>> generalization_score(torch.eye(3), torch.eye(3)[:1])
        0.6666666666666666
    """
    copies = have_copies(features, train_features, threshold)
    return (len(copies) - int(copies.sum())) / len(copies)
