"""GL: how often a sample is no copy of a training image."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repro.metrics.functional.copies import have_copies
from repro.metrics.functional.similarity import check_threshold, exceeds, nearest

__all__ = ["generalization_score", "memorization_matches"]


def memorization_matches(features: Any, train_features: Any, threshold: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are copies of a training image: max_y M(x_i, y) > threshold, strictly.

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


def generalization_score(features: Any, train_features: Any, threshold: float = 0.6) -> float:
    r"""GL score of a model: the share of its samples that are no copy of a training image.

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
