"""Likeness of encodings as a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repro.metrics.base import PairMetric
from repro.metrics.functional.encoding import encoding_matches
from repro.metrics.functional.similarity import check_threshold

__all__ = ["EncodingReproducibilityScore"]


class EncodingReproducibilityScore(PairMetric):
    """Share of images to which two models give the same noise; the class of ``encoding_reproducibility_score``.

    ``update`` takes noises, floats (n, C, H, W) or (n, d), and numbers of the images.

    Args:
        threshold: Cosine in [-1, 1] above which, strictly, two noises are the same.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: a threshold outside [-1, 1].

    Example:
        >>> import torch
        >>> metric = EncodingReproducibilityScore()
        >>> metric.update(torch.eye(4), torch.eye(4), seeds=range(4))
        >>> metric.counts()
        (4, 4)
    """

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = check_threshold(threshold)

    def match(self, a: Tensor, b: Tensor) -> Tensor:
        """Finds the pairs of noises whose cosine exceeds the threshold."""
        return encoding_matches(a, b, self.threshold)
