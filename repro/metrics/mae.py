"""The MAE score as a class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from repro.metrics.base import PairMetric
from repro.metrics.functional.mae import check_mae_threshold, mae_matches

__all__ = ["MAEScore"]


class MAEScore(PairMetric):
    """MAE score, the share of noises whose two images differ by little in their pixels.

    The class of :func:`repro.metrics.functional.mae_score`, which has the formula; ``update`` takes uint8
    (n, C, H, W) images, and seeds.

    Args:
        threshold: Mean absolute difference in [0, 255] below which, strictly, two images are alike.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: a threshold outside [0, 255].

    Example:
        >>> import torch
        >>> metric = MAEScore()
        >>> black = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> metric.update(black, black + 14)
        >>> float(metric.compute())
        1.0
    """

    inputs: ClassVar[Literal["features", "images"]] = "images"

    def __init__(self, threshold: float = 15.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = check_mae_threshold(threshold)

    def match(self, a: Tensor, b: Tensor) -> Tensor:
        """Finds the pairs whose mean absolute difference is below the threshold."""
        return mae_matches(a, b, self.threshold)
