"""RP as a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repro.metrics.base import PairMetric
from repro.metrics.functional.reproducibility import reproducibility_matches
from repro.metrics.functional.similarity import check_threshold

__all__ = ["ReproducibilityScore"]


class ReproducibilityScore(PairMetric):
    """RP score, the share of noises from which two models draw the same image.

    The class of :func:`repro.metrics.functional.reproducibility_score`, which has the formula; ``update`` takes
    floating (n, d) features or uint8 (n, C, H, W) images, and seeds.

    Args:
        threshold: Similarity in [-1, 1] above which, strictly, two images are the same.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: a threshold outside [-1, 1].

    Example:
        >>> import torch
        >>> metric = ReproducibilityScore()
        >>> metric.update(torch.eye(4), torch.eye(4), seeds=range(4))
        >>> metric.update(torch.eye(4), torch.eye(4), seeds=range(4))
        >>> float(metric.compute()), metric.counts()
        (1.0, (4, 4))
    """

    def __init__(self, threshold: float = 0.6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = check_threshold(threshold)

    def match(self, a: Tensor, b: Tensor) -> Tensor:
        """Finds the pairs whose similarity exceeds the threshold."""
        return reproducibility_matches(a, b, self.threshold)
