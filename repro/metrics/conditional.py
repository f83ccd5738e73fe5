"""Conditional and between RP as classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.base import CountMetric, RateMetric
from repro.metrics.functional.conditional import (
    between_matches,
    check_labels,
    conditional_counts,
    conditional_rates,
)
from repro.metrics.functional.reproducibility import reproducibility_matches
from repro.metrics.functional.similarity import check_threshold

__all__ = ["BetweenReproducibilityScore", "ConditionalReproducibilityScore"]


class ConditionalReproducibilityScore(CountMetric):
    """Conditional RP, the share of noises from which two models draw the same image, given the class.

    The class of :func:`repro.metrics.functional.conditional_reproducibility_score`, which has the formula; every pair
    of seed and class counts once. ``compute`` gives the mean, :meth:`per_class` each class.

    Args:
        num_classes: Number of classes.
        threshold: Similarity in [-1, 1] above which, strictly, two images are the same.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: no classes, or a threshold outside [-1, 1]; at an update, labels that do not fit.

    Example:
        >>> metric = ConditionalReproducibilityScore(num_classes=2)
        >>> metric.update(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]], labels=[0, 1, 0, 1], seeds=[7, 7, 8, 8])
        >>> metric.per_class().tolist(), float(metric.compute())
        ([0.5, 0.5], 0.5)
    """

    higher_is_better: bool | None = True
    keys = 2

    def __init__(self, num_classes: int | None = None, threshold: float = 0.6, **kwargs: Any) -> None:
        if num_classes is None or int(num_classes) < 1:
            raise UserError(
                f"ConditionalReproducibilityScore of {num_classes} classes; give their number, num_classes, at least 1"
            )
        super().__init__((int(num_classes),), **kwargs)
        self.add_state("total", default=torch.zeros(int(num_classes), dtype=torch.int64), dist_reduce_fx="sum")
        self.num_classes = int(num_classes)
        self.threshold = check_threshold(threshold)

    def update(self, a: Tensor, b: Tensor, labels: Any, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds pairs of images with their classes, row i of both from noise i.

        Args:
            a: Of the first model: floating (n, d) features or uint8 (n, C, H, W) images, one row a noise and class.
            b: Of the second model, in the same order.
            labels: Class of each row, integers (n,).
            seeds: Number of each row's noise, (n,); each counts once for each class then.
        """
        a, b = (self.look.features(side, self.device) for side in (a, b))
        matches = reproducibility_matches(a, b, self.threshold)
        self.record(matches, seeds, check_labels(labels, len(matches), self.num_classes))

    def _tally(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return conditional_counts(rows[:, 2].bool(), rows[:, 1], self.num_classes)

    def _outcomes(self) -> int:
        return 1

    def per_class(self) -> Tensor:
        """Computes the rate of each class, float64, shape (num_classes,), over all processes; NaN without a sample."""
        return conditional_rates(*self.counts()).per_class

    def compute(self) -> Tensor:
        """Computes the mean over the classes with samples, float64."""
        return torch.tensor(conditional_rates(*self._counted()).mean, dtype=torch.float64, device=self.hits.device)


class BetweenReproducibilityScore(RateMetric):
    """Between RP, the share of noises from which an unconditional model draws what a conditional one does for a class.

    The class of :func:`repro.metrics.functional.between_reproducibility_score`, which has the formula.

    Args:
        threshold: Similarity in [-1, 1] above which, strictly, two images are the same.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: a threshold outside [-1, 1].

    Example:
        >>> metric = BetweenReproducibilityScore()
        >>> metric.update(torch.eye(3), torch.eye(3)[torch.tensor([[0, 1], [2, 1], [0, 1]])], seeds=[0, 1, 2])
        >>> metric.counts()
        (2, 3)
    """

    higher_is_better: bool | None = True

    def __init__(self, threshold: float = 0.6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = check_threshold(threshold)

    def update(self, uncond: Tensor, cond: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds noises: one unconditional image and the images of every class.

        Args:
            uncond: Of the unconditional model, row i from noise i: floating (n, d) features or uint8 images.
            cond: Of the conditional model, entry (i, c) from noise i under class c: (n, classes, d), or images.
            seeds: Number of each noise, (n,); each counts once then, however often it comes.
        """
        uncond, cond = (self.look.features(side, self.device) for side in (uncond, cond))
        self.record(between_matches(uncond, cond, self.threshold)[0], seeds)
