"""What every score's class has in common: integer counts, each seed once."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.descriptors.base import Descriptor
from repro.devices import onto
from repro.errors import UserError
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.look import Look

__all__ = ["CountMetric", "PairMetric", "RateMetric"]


def numbers_of(seeds: Iterable[int] | Tensor, count: int) -> Tensor:
    """Converts seeds to int64, shape (count,).

    Raises:
        UserError: another number of seeds.
    """
    numbers = torch.as_tensor(seeds if isinstance(seeds, Tensor) else list(seeds), dtype=torch.int64)
    if numbers.shape != (count,):
        raise UserError(f"{tuple(numbers.shape)} seeds for {count} samples; give one seed a sample")
    return numbers


def gathered(metric: Metric) -> AbstractContextManager[None]:
    """Returns a context in which a metric's states are those of all processes, as they are in its ``compute``."""
    return metric.sync_context(
        dist_sync_fn=metric.dist_sync_fn,
        should_sync=metric._to_sync and not metric._is_synced,
        should_unsync=not metric._is_synced,
    )


_INSTANCES = itertools.count()


class CountMetric(Metric):
    """Counts of noises for which something holds, in integers that add up exactly over processes.

    Outcomes with seeds count once for each seed, whatever batches and processes they came from: the copies that a
    padded distributed sampler makes are dropped when the score is computed. Outcomes without seeds all count.

    A subclass says what an outcome is; several outcomes of one noise make a vector of counts.

    Args:
        size: Outcomes of each noise, the length of ``hits``; () for one.
        descriptor: A descriptor or its registered name, for metrics of features that are given images; ``Pixels``
            when left out. Copies of the metric share it; it is no state and no module.
        normalize: Whether images are floats in [0, 1], as torchmetrics says it, rather than uint8.
        **kwargs: Of ``torchmetrics.Metric``.
    """

    higher_is_better: bool | None = None
    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0
    keys: ClassVar[int] = 1  # leading columns of a row that say which noise it is of

    hits: Tensor
    total: Tensor
    scored: list[Tensor]

    def __init__(
        self,
        size: tuple[int, ...] = (),
        descriptor: Descriptor | str | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.look = Look.of(descriptor, normalize)
        # A MetricCollection computes metrics of equal states once; equal counts of two scores must not make them one.
        self.add_state("instance", default=torch.tensor(next(_INSTANCES)), dist_reduce_fx="max")
        self.add_state("hits", default=torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("scored", default=[], dist_reduce_fx="cat")

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a value, or a list of values over steps, as torchmetrics does.

        Args:
            val: Of :meth:`compute` or ``forward``, or a list of them; what has been counted so far when left out.
            ax: The matplotlib axes to draw on; new ones when left out.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)

    def record(self, outcomes: Tensor, seeds: Iterable[int] | Tensor | None, group: Tensor | None = None) -> None:
        """Adds outcomes, bool (n, ...), of the given seeds (n,), or of noises of no number.

        Args:
            outcomes: What holds for each noise.
            seeds: Number of each noise, or None.
            group: A second number of each outcome, (n,), where one noise has several; ``keys`` is 2 then.
        """
        outcomes = outcomes.to(self.hits.device, torch.int64).flatten(1) if outcomes.ndim > 1 else outcomes[:, None]
        columns = [torch.zeros(len(outcomes), dtype=torch.int64) if seeds is None else numbers_of(seeds, len(outcomes))]
        columns += [] if group is None else [group]
        keyed = [onto(self.hits.device, column)[:, None] for column in columns]
        rows = torch.cat([*keyed, outcomes.to(self.hits.device, torch.int64)], dim=1)
        if seeds is None:
            hits, total = self._tally(rows)
            self.hits += hits
            self.total += total
        else:
            self.scored.append(rows)

    def _tally(self, rows: Tensor) -> tuple[Tensor, Tensor | int]:
        """Hits and total of rows of keys and outcomes, each counted."""
        return rows[:, self.keys :].sum(0).view(self.hits.shape), len(rows)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states; a process that saw no seed takes part with none, in the right dtype."""
        if isinstance(self.scored, list) and not self.scored:
            columns = self.keys + self._outcomes()
            self.scored.append(torch.zeros(0, columns, dtype=torch.int64, device=self.hits.device))
        super().sync(*args, **kwargs)

    def _outcomes(self) -> int:
        """Number of outcomes of each row."""
        return self.hits.numel()

    def _counted(self) -> tuple[Tensor, Tensor]:
        rows = torch.cat(self.scored) if isinstance(self.scored, list) and self.scored else self.scored
        hits, total = self.hits, self.total
        if isinstance(rows, Tensor) and len(rows):
            distinct = rows.unique(dim=0)
            keys = distinct[:, : self.keys]
            repeated = (keys[1:] == keys[:-1]).all(1)
            if bool(repeated.any()):
                seed = int(keys[1:, 0][repeated][0])
                raise UserError(
                    f"seed {seed} was scored twice with different outcomes: batches or processes hold different images "
                    "of it; draw each noise once, and reset() between models"
                )
            more, seen = self._tally(distinct)
            hits, total = hits + more, total + seen
        if not bool(total.any()):
            raise UserError(f"{type(self).__name__} has seen no sample; call update first")
        return hits, total

    def counts(self) -> tuple[Any, Any]:
        """Computes numbers of noises for which it holds, and of all noises, over all processes: int64 tensors."""
        with gathered(self):
            return self._counted()

    def intervals(self, confidence: float = 0.95) -> Tensor:
        """Computes the Wilson interval of every rate, float64, shape (..., 2)."""
        hits, total = (torch.as_tensor(count) for count in self.counts())
        pairs = zip(hits.flatten().tolist(), total.expand(hits.shape).flatten().tolist(), strict=True)
        limits = [wilson_interval(hit, n, confidence) if n else (0.0, 1.0) for hit, n in pairs]
        return torch.tensor(limits, dtype=torch.float64).view(*hits.shape, 2)

    def compute(self) -> Tensor:
        """Computes the rates in [0, 1], float64, in the shape of the counts."""
        hits, total = self._counted()
        return hits.double() / total


class RateMetric(CountMetric):
    """A share of noises for which something holds; a subclass's ``update`` calls :meth:`record`."""

    def counts(self) -> tuple[int, int]:
        """Computes the number of noises for which it holds, and number of noises, over all processes."""
        hits, total = super().counts()
        return int(hits), int(total)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Computes the Wilson interval of the rate; see :func:`repro.metrics.functional.intervals.wilson_interval`."""
        return wilson_interval(*self.counts(), confidence)


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
        """Says which pairs are alike: bool (n,), from row i of a and row i of b, both from noise i."""

    def update(self, a: Tensor, b: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
        """Adds pairs of images, row i of both from noise i.

        Args:
            a: Of the first model, row i from noise i.
            b: Of the second model, in the same order.
            seeds: Number of each noise, (n,); each counts once then, however often it comes.
        """
        if self.inputs == "images":
            a, b = self.look.images(a), self.look.images(b)
        else:
            a, b = self.look.features(a, self.device), self.look.features(b, self.device)
        self.record(self.match(a, b), seeds)
