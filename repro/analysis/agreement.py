"""How far a descriptor decides as another one does, which pairs of images are copies, and at which threshold best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repro.analysis.copy_detection import Described
from repro.errors import UserError
from repro.metrics.functional.intervals import wilson_interval

__all__ = ["Agreement", "agreement", "best_threshold", "kappa"]


@dataclass(frozen=True)
class Agreement:
    """Decisions of a descriptor beside those of a judge, on pairs that both described.

    Half of the pairs choose ``best``; everything is counted on the other half.

    Attributes:
        descriptor: Name of the descriptor.
        judge: Name of the judge.
        judge_threshold: Above which the judge takes two images for copies.
        pairs: How many pairs are counted: copies with their originals, and images with those that the judge finds
            nearest.
        judged: How many the judge takes for copies.
        threshold: The descriptor's own threshold.
        agreed: Pairs on which the two decide alike at that threshold.
        kappa: The same beyond chance (Cohen), at most 1; 0 where they agree no more than chance.
        best: The threshold at which they agree most, on the half that is not counted.
        best_agreed: Pairs on which the two decide alike at ``best``.
        best_kappa: The same beyond chance.
    """

    descriptor: str
    judge: str
    judge_threshold: float
    pairs: int
    judged: int
    threshold: float
    agreed: int
    kappa: float
    best: float
    best_agreed: int
    best_kappa: float

    def row(self) -> dict[str, object]:
        """Returns cells of a table, with Wilson's 95 % intervals of both agreements."""
        cells = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("agreed", "best_agreed"):
            low, high = wilson_interval(cells[name], self.pairs)
            cells |= {f"{name}_rate": cells[name] / self.pairs, f"{name}_low": low, f"{name}_high": high}
        return cells


def agreement(judge: Described, other: Described) -> Agreement:
    """Compares the decisions of two descriptors on the same pairs.

    Args:
        judge: What the judge makes of the images.
        other: What the descriptor makes of the same images and copies.

    Raises:
        UserError: other images or edits, or fewer than four images.
    """
    if judge.edits != other.edits or len(judge.references) != len(other.references) or len(judge.references) < 4:
        raise UserError("the two descriptors describe other images; describe the same four or more with both")
    near = judge.references @ judge.references.T
    near.fill_diagonal_(-2)
    nearest = near.argmax(1)
    first, second = (_similarities(each, nearest) for each in (judge, other))
    yes = first > judge.threshold
    chosen = torch.arange(len(yes)) % 2 == 0
    best = best_threshold(second[chosen], yes[chosen])
    seen, answers = yes[~chosen], second[~chosen]
    at, at_best = answers > other.threshold, answers > best
    return Agreement(
        other.name,
        judge.name,
        judge.threshold,
        len(seen),
        int(seen.sum()),
        other.threshold,
        int((at == seen).sum()),
        kappa(at, seen),
        best,
        int((at_best == seen).sum()),
        kappa(at_best, seen),
    )


def _similarities(described: Described, nearest: Tensor) -> Tensor:
    """Of each copy with its original, then of each image with another one."""
    count = len(described.copies[0])
    copies = [(each * described.references[:count]).sum(1) for each in described.copies]
    return torch.cat([*copies, (described.references * described.references[nearest]).sum(1)])


def best_threshold(similarity: Tensor, yes: Tensor) -> float:
    """The threshold whose decisions agree most with given ones; the middle of the gap, the highest where several do.

    Args:
        similarity: Of each pair, (n,).
        yes: The given decisions, bool (n,).

    Example:
        >>> similarity, yes = torch.tensor([0.125, 0.25, 0.75, 0.9]), torch.tensor([False, False, True, True])
        >>> best_threshold(similarity, yes)
        0.5
    """
    values, order = similarity.double().sort()
    decided = yes[order].long()
    agreed = decided.sum() + torch.cat([torch.zeros(1, dtype=torch.int64), (1 - 2 * decided).cumsum(0)])
    bounds = torch.cat([values[:1] - 1e-3, (values[1:] + values[:-1]) / 2, values[-1:]])
    legal = torch.cat([torch.ones(1, dtype=torch.bool), values[1:] > values[:-1], torch.ones(1, dtype=torch.bool)])
    agreed = torch.where(legal, agreed, -1)
    return float(bounds[int((agreed == agreed.max()).nonzero()[-1])])


def kappa(one: Tensor, other: Tensor) -> float:
    """Cohen's kappa of two rows of decisions: agreement beyond chance; 1 where all agree, also on one answer alone.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    alike, first, second = ((one == other).double().mean(), one.double().mean(), other.double().mean())
    chance = first * second + (1 - first) * (1 - second)
    return 1.0 if chance == 1 else float((alike - chance) / (1 - chance))
