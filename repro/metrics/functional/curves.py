"""Scores as functions of their threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.similarity import as_features, check_threshold, cosine, nearest, same_shape

__all__ = ["THRESHOLDS", "counts_above", "counts_below", "generalization_curve", "reproducibility_curve"]

THRESHOLDS = tuple(step / 50 for step in range(51))


def check_thresholds(thresholds: Sequence[float] | Tensor) -> Tensor:
    """Returns thresholds as float64, shape (t,).

    Raises:
        UserError: none, or one outside [-1, 1].
    """
    values = [check_threshold(threshold) for threshold in torch.as_tensor(thresholds, dtype=torch.float64).flatten()]
    if not values:
        raise UserError("no threshold given; a curve needs at least one in [-1, 1]")
    return torch.tensor(values, dtype=torch.float64)


def counts_above(values: Tensor, limits: Sequence[float] | Tensor) -> Tensor:
    """Counts how many values are strictly above each limit, compared in the values' own dtype.

    Args:
        values: Shape (n,).
        limits: Shape (t,).

    Returns:
        int64, shape (t,).
    """
    return len(values) - _places(values, limits, right=True)


def counts_below(values: Tensor, limits: Sequence[float] | Tensor) -> Tensor:
    """Counts how many values are strictly below each limit; see :func:`counts_above`."""
    return _places(values, limits, right=False)


def _places(values: Tensor, limits: Sequence[float] | Tensor, right: bool) -> Tensor:
    limits = torch.as_tensor(limits, dtype=torch.float64).to(values.device, values.dtype)
    return torch.searchsorted(values.sort().values, limits, right=right)


def reproducibility_curve(a: Any, b: Any, thresholds: Sequence[float] | Tensor = THRESHOLDS) -> Tensor:
    """RP score of two models at several thresholds; each entry equals ``reproducibility_score`` at its threshold.

    Args:
        a: Of the first model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        b: Of the second model, in the same order.
        thresholds: Values in [-1, 1], shape (t,); 0, 0.02, ..., 1 when left out.

    Returns:
        Rates in [0, 1], float64, shape (t,); they fall with the threshold.

    Raises:
        UserError: as :func:`~repro.metrics.functional.reproducibility_score`, or no threshold.

    Example:
        >>> reproducibility_curve(torch.eye(2), torch.tensor([[2.0, 1.0], [2.0, 1.0]]), [0.4, 0.6, 0.9]).tolist()
        [1.0, 0.5, 0.0]
    """
    a, b = same_shape(a, b)
    return counts_above(cosine(a, b), check_thresholds(thresholds)).double() / len(a)


def generalization_curve(
    features: Any, train_features: Any, thresholds: Sequence[float] | Tensor = THRESHOLDS
) -> Tensor:
    """GL score of a model at several thresholds; each entry equals ``generalization_score`` at its threshold.

    Args:
        features: Floating (n, d) features or uint8 (n, C, H, W) images of the samples.
        train_features: The same of the training set.
        thresholds: Values in [-1, 1], shape (t,); 0, 0.02, ..., 1 when left out.

    Returns:
        Rates in [0, 1], float64, shape (t,); they rise with the threshold.

    Raises:
        UserError: as :func:`~repro.metrics.functional.generalization_score`, or no threshold.
    """
    features = as_features(features, "features")
    similarity, _ = nearest(features, train_features)
    above = counts_above(similarity, check_thresholds(thresholds))
    return (len(features) - above).double() / len(features)
