"""What every score's class has in common: integer counts, each seed once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.errors import UserError
from repro.intervals import wilson_interval

__all__ = ["PairMetric", "RateMetric"]


class RateMetric(Metric):
    """A share of noises for which something holds, counted in integers that add up exactly over processes.

    Outcomes with seeds count once for each seed, whatever batches and processes they came from: the copies that a
    padded distributed sampler makes are dropped when the score is computed. Outcomes without seeds all count.
    """

    higher_is_better: bool | None = None
    is_differentiable: bool | None = False
    full_state_update: bool | None = False

    hits: Tensor
    total: Tensor
    scored: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("hits", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("scored", default=[], dist_reduce_fx="cat")

    def record(self, outcomes: Tensor, seeds: Iterable[int] | Tensor | None) -> None:
        """Adds outcomes, bool (n,), of the given seeds (n,), or of noises of no number."""
        outcomes = outcomes.to(self.hits.device, torch.int64)
        if seeds is None:
            self.hits += outcomes.sum()
            self.total += len(outcomes)
            return
        numbers = torch.as_tensor(seeds if isinstance(seeds, Tensor) else list(seeds), dtype=torch.int64)
        if numbers.shape != outcomes.shape:
            raise UserError(f"{tuple(numbers.shape)} seeds for {len(outcomes)} samples; give one seed a sample")
        self.scored.append(torch.stack([numbers.to(outcomes.device), outcomes], dim=1))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states; a process that saw no seed takes part with none, in the right dtype."""
        if isinstance(self.scored, list) and not self.scored:
            self.scored.append(torch.zeros(0, 2, dtype=torch.int64, device=self.hits.device))
        super().sync(*args, **kwargs)

    def _counted(self) -> tuple[int, int]:
        rows = torch.cat(self.scored) if isinstance(self.scored, list) and self.scored else self.scored
        hits, total = int(self.hits), int(self.total)
        if isinstance(rows, Tensor) and len(rows):
            distinct = rows.unique(dim=0)
            repeated = distinct[1:, 0] == distinct[:-1, 0]
            if bool(repeated.any()):
                seed = int(distinct[1:, 0][repeated][0])
                raise UserError(
                    f"seed {seed} was scored twice with different outcomes: batches or processes hold different images "
                    "of it; draw each noise once, and reset() between models"
                )
            hits, total = hits + int(distinct[:, 1].sum()), total + len(distinct)
        if total == 0:
            raise UserError(f"{type(self).__name__} has seen no sample; call update first")
        return hits, total

    def counts(self) -> tuple[int, int]:
        """Number of noises for which it holds, and number of noises, over all processes."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and not self._is_synced,
            should_unsync=not self._is_synced,
        ):
            return self._counted()

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the rate; see :func:`repro.intervals.wilson_interval`."""
        return wilson_interval(*self.counts(), confidence)

    def compute(self) -> Tensor:
        """The rate in [0, 1], float64."""
        hits, total = self._counted()
        return torch.tensor(hits / total, dtype=torch.float64, device=self.hits.device)


class PairMetric(RateMetric):
    """A share of noises from which two models draw alike images; the base of plug-in metrics of a comparison.

    A subclass takes plain constructor arguments, defines :meth:`match` and says what it looks at.

    Attributes:
        inputs: ``features`` of the comparison's descriptor, float32 (n, d), or ``images``, uint8 (n, C, H, W).

    Example:
        >>> class Identical(PairMetric):
        ...     inputs = "images"
        ...     def match(self, a, b):
        ...         return (a == b).flatten(1).all(1)
        >>> metric = Identical()
        >>> black = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> metric.update(black, black, seeds=[0, 1, 2])
        >>> metric.counts()
        (3, 3)
    """

    higher_is_better: bool | None = True
    inputs: ClassVar[Literal["features", "images"]] = "features"

    @abstractmethod
    def match(self, a: Tensor, b: Tensor) -> Tensor:
        """Which pairs are alike: bool (n,), from row i of a and row i of b, both from noise i."""

    def update(self, a: Tensor, b: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds pairs.

        Args:
            a: Of the first model, row i from noise i.
            b: Of the second model, in the same order.
            seeds: Number of each noise, (n,); each counts once then, however often it comes.
        """
        self.record(self.match(a, b), seeds)
