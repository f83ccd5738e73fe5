"""RP of many systems, and at many thresholds, as classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.base import CountMetric
from repro.metrics.functional.curves import THRESHOLDS, check_thresholds
from repro.metrics.functional.reproducibility import reproducibility_matrix_matches
from repro.metrics.functional.similarity import check_threshold, cosine, exceeds, same_shape
from repro.plots.style import INK, colour_scale

__all__ = ["ReproducibilityCurve", "ReproducibilityMatrix"]


class ReproducibilityMatrix(CountMetric):
    """RP of every pair of K systems, in one pass over the noises.

    The class of :func:`repro.metrics.functional.reproducibility_matrix`; counts and rates are (K, K) and symmetric.

    Args:
        systems: K, at least 2.
        threshold: Similarity in [-1, 1] above which, strictly, two images are the same.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: fewer than two systems, or a threshold outside [-1, 1]; at an update, another number of systems.

    Example:
        >>> metric = ReproducibilityMatrix(systems=3)
        >>> metric.update([torch.eye(2), torch.eye(2), torch.eye(2).flip(0)], seeds=[0, 1])
        >>> metric.compute().tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    higher_is_better: bool | None = True

    def __init__(self, systems: int | None = None, threshold: float = 0.6, **kwargs: Any) -> None:
        if systems is None or int(systems) < 2:
            raise UserError(f"ReproducibilityMatrix of {systems} systems; give their number, systems, of at least 2")
        super().__init__((int(systems), int(systems)), **kwargs)
        self.systems = int(systems)
        self.threshold = check_threshold(threshold)

    def update(self, features: Tensor | Sequence[Tensor], seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds noises: the images of all K systems from each.

        Args:
            features: Of the K systems: floating (n, K, d), uint8 images (n, K, C, H, W), or a list of K.
            seeds: Number of each noise, (n,); each counts once then, however often it comes.
        """
        matches = reproducibility_matrix_matches(self.look.features(features, self.device), self.threshold)
        if matches.shape[1] != self.systems:
            raise UserError(f"features of {matches.shape[1]} systems for a matrix of {self.systems}; give all of them")
        first, second = self._pairs()
        self.record(matches[:, first, second], seeds)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draws the rates of all pairs as a matrix with its numbers.

        Args:
            val: (K, K) rates; those of what has been counted so far when left out.
            ax: The matplotlib axes to draw on; new ones when left out.

        Returns:
            Figure and axes.
        """
        rates = self.compute() if val is None else val
        figure, axes = axes_for(ax)
        axes.imshow(rates.cpu(), vmin=0, vmax=1, cmap=colour_scale())
        for row, column in product(range(self.systems), repeat=2):
            rate = float(rates[row, column])
            axes.text(column, row, f"{rate:.2f}", ha="center", va="center", color="white" if rate > 0.55 else INK)
        axes.set(title=type(self).__name__, xticks=range(self.systems), yticks=range(self.systems))
        return figure, axes

    def _pairs(self) -> Tensor:
        return torch.triu_indices(self.systems, self.systems, device=self.hits.device)

    def _tally(self, rows: Tensor) -> tuple[Tensor, int]:
        first, second = self._pairs()
        hits = torch.zeros_like(self.hits)
        hits[first, second] = hits[second, first] = rows[:, 1:].sum(0)
        return hits, len(rows)

    def _outcomes(self) -> int:
        return self.systems * (self.systems + 1) // 2


class ReproducibilityCurve(CountMetric):
    """RP of two models at several thresholds.

    The class of :func:`repro.metrics.functional.reproducibility_curve`; counts and rates have shape (t,).

    Args:
        thresholds: Similarities in [-1, 1]; 0, 0.02, ..., 1 when left out.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: no threshold, or one outside [-1, 1].

    Example:
        >>> metric = ReproducibilityCurve([0.4, 0.6, 0.9])
        >>> metric.update(torch.eye(2), torch.tensor([[2.0, 1.0], [2.0, 1.0]]), seeds=[0, 1])
        >>> metric.compute().tolist()
        [1.0, 0.5, 0.0]
    """

    higher_is_better: bool | None = True

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, **kwargs: Any) -> None:
        limits = check_thresholds(thresholds)
        super().__init__((len(limits),), **kwargs)
        self.thresholds = tuple(limits.tolist())

    def update(self, a: Tensor, b: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds pairs of images, row i of both from noise i.

        Args:
            a: Of the first model, row i from noise i.
            b: Of the second model, in the same order.
            seeds: Number of each noise, (n,); each counts once then, however often it comes.
        """
        similarity = cosine(*same_shape(*(self.look.features(side, self.device) for side in (a, b))))
        self.record(exceeds(similarity[:, None], torch.tensor(self.thresholds, dtype=torch.float64)), seeds)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draws the rate by threshold.

        Args:
            val: (t,) rates, or a list of such; those of what has been counted so far when left out.
            ax: The matplotlib axes to draw on; new ones when left out.

        Returns:
            Figure and axes.
        """
        curves = [self.compute() if val is None else val] if val is None or isinstance(val, Tensor) else val
        figure, axes = axes_for(ax)
        for curve in curves:
            axes.plot(self.thresholds, curve.cpu())
        axes.set(title=type(self).__name__, xlabel="similarity threshold", ylabel="share of noises", ylim=(0, 1.02))
        return figure, axes


def axes_for(ax: Any) -> tuple[Any, Any]:
    """Returns the figure of some axes and the axes; without axes, new ones as matplotlib.pyplot makes them."""
    if ax is not None:
        return ax.get_figure(), ax
    from matplotlib import pyplot

    return pyplot.subplots()
