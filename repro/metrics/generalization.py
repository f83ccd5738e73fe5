"""GL as a class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from repro.errors import UserError
from repro.metrics.base import RateMetric
from repro.metrics.functional.generalization import memorization_matches
from repro.metrics.functional.similarity import as_features, check_threshold

__all__ = ["GeneralizationScore"]


class GeneralizationScore(RateMetric):
    """GL score, the share of samples that are no copy of a training image.

    The class of :func:`repro.metrics.functional.generalization_score`, which has the formula; ``update`` takes
    floating (n, d) features or uint8 (n, C, H, W) images of samples, and seeds. The training set is no state: it is
    neither synchronised nor saved.

    Args:
        train_features: Features or images of the training set; or give them later with :meth:`set_train`.
        threshold: Similarity in [-1, 1] above which, strictly, a sample is a copy.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: a threshold outside [-1, 1]; at an update, no training set.

    Example:
        >>> import torch
        >>> metric = GeneralizationScore(torch.eye(3)[:1])
        >>> metric.update(torch.eye(3))
        >>> metric.counts()
        (2, 3)
    """

    higher_is_better: bool | None = True

    def __init__(self, train_features: Any = None, threshold: float = 0.6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = check_threshold(threshold)
        self._train: Tensor | None = None
        if train_features is not None:
            self.set_train(train_features)

    def set_train(self, train_features: Any) -> None:
        """Names the training set: floating (N, d) features or uint8 (N, C, H, W) images."""
        self._train = as_features(self.look.features(train_features, self.device), "train_features")

    def update(self, features: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds samples of the model, one a seed.

        Args:
            features: Floating (n, d) features or uint8 (n, C, H, W) images.
            seeds: Number of each sample's noise, (n,); each counts once then, however often it comes.
        """
        if self._train is None:
            raise UserError("GeneralizationScore has no training set; give train_features or call set_train first")
        features = self.look.features(features, self.device)
        copies, _, _ = memorization_matches(features, self._train, self.threshold)
        self.record(~copies, seeds)
