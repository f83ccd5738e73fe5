"""Outcomes of every pair of systems on every noise, in one pass over the noises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from tqdm import tqdm

from repro.banks import Bank
from repro.comparison.results import Conditions, Outcomes, PairCounts, PairValues, Sense
from repro.errors import UserError
from repro.metrics.base import PairMetric
from repro.metrics.functional.conditional import between_matches
from repro.metrics.functional.mae import absolute_difference_matrix, stays_below
from repro.metrics.functional.pairs import pair_values, pairs_of
from repro.metrics.functional.similarity import cosine_matrix, exceeds
from repro.metrics.protocol import is_paired, metric_value, pick

__all__ = ["Group", "between_scores", "check_size", "derangement", "groups_of", "pair_scores"]

_MOST_OUTCOMES = 200_000_000  # 28 bytes each: RP in float32, MAE in float64, both also on shuffled noises

Pair = tuple[int, int]


def derangement(n: int, seed: int) -> Tensor:
    """Makes a fixed shuffle of n >= 2 places that leaves none where it was: a random cycle through all of them.

    Example:
        >>> bool((derangement(1000, 0) == torch.arange(1000)).any())
        False
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = torch.empty_like(order)
    shuffled[order] = order.roll(-1)
    return shuffled


def check_size(systems: int, n: int) -> None:
    """Checks that the outcomes of all pairs of systems fit in memory; before anything is drawn or described.

    Args:
        systems: Their number K; a comparison has K (K + 1) / 2 pairs.
        n: Images of each.

    Raises:
        UserError: more than 200 million outcomes, about 6 GB.
    """
    pairs = systems * (systems + 1) // 2
    if pairs * n > _MOST_OUTCOMES:
        raise UserError(
            f"{systems} systems have {pairs:,} pairs, on {n:,} images each {pairs * n:,} outcomes, about "
            f"{pairs * n * 28 / 1e9:.0f} GB; at most {_MOST_OUTCOMES:,} are counted at once: compare at most "
            f"{_MOST_OUTCOMES // pairs:,} images of each with --seeds, or fewer systems"
        )


@dataclass(frozen=True)
class Group:
    """Systems whose images belong together one by one: all unconditional, or all of the same noises and classes.

    Attributes:
        systems: Their numbers among all that are compared.
        banks: Of the systems.
        features: Of their images, (n, d) each.
        shuffle: For each image another one, of another noise and the same class; None where there is none.
    """

    systems: list[int]
    banks: list[Bank]
    features: list[Tensor]
    shuffle: Tensor | None

    def pairs(self) -> list[Pair]:
        """Numbers of the systems of each pair, in the order of :func:`~repro.metrics.functional.pairs.pairs_of`."""
        return [(self.systems[i], self.systems[j]) for i, j in pairs_of(len(self.systems))]

    def inputs(self, metric: Metric) -> list[Tensor]:
        """Returns what a metric looks at, of each system: features or images."""
        return pick(metric, self.features, [bank.images for bank in self.banks])


def groups_of(banks: Sequence[Bank], features: Sequence[Tensor], control_seed: int) -> list[Group]:
    """Groups the unconditional systems and the conditional ones, each where there are any."""
    groups = []
    for conditional in (False, True):
        systems = [number for number, bank in enumerate(banks) if (bank.labels is not None) == conditional]
        if systems:
            own = [banks[number] for number in systems]
            shuffle = _shuffled(len(own[0]), own[0].labels, control_seed)
            groups.append(Group(systems, own, [features[number] for number in systems], shuffle))
    return groups


def _shuffled(count: int, labels: Tensor | None, seed: int) -> Tensor | None:
    """Another row of the same class for each row, or None when a class has only one."""
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    order = torch.empty(count, dtype=torch.int64)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        if len(rows) < 2:
            return None
        order[rows] = rows[derangement(len(rows), seed)]
    return order


@dataclass(frozen=True)
class _Rule:
    """A score of pairs that compares one number of each noise with a threshold."""

    inputs: Callable[[Group], list[Tensor]]
    matrix: Callable[..., Tensor]
    holds: Callable[[Tensor, float], Tensor]
    sense: Sense
    threshold: float


def _rules(conditions: Conditions) -> dict[str, _Rule]:
    return {
        "RP": _Rule(lambda group: group.features, cosine_matrix, exceeds, ">", conditions.threshold),
        "MAE": _Rule(
            lambda group: [bank.images.flatten(1) for bank in group.banks],
            partial(absolute_difference_matrix, upper=True),
            stays_below,
            "<",
            conditions.mae_threshold,
        ),
    }


def pair_scores(
    groups: Sequence[Group], count: int, conditions: Conditions, metrics: Mapping[str, Metric]
) -> tuple[dict[str, PairCounts], dict[str, PairValues]]:
    """Counts RP, MAE and further metrics of every pair inside each group; distances of whole sets of every pair.

    Args:
        groups: Of :func:`groups_of`.
        count: Number of systems.
        conditions: With the thresholds.
        metrics: Of :func:`repro.metrics.protocol.pair_metrics`.
    """
    rules = _rules(conditions)
    scores = {
        name: PairCounts.of(name, count, _over_groups(groups, _outcomes, name, rule), rule.sense, rule.threshold)
        for name, rule in rules.items()
    }
    values = {}
    for name, metric in metrics.items():
        if isinstance(metric, PairMetric):
            scores[name] = PairCounts.of(name, count, _over_groups(groups, _matched, name, metric))
        else:
            values[name] = PairValues.empty(name, count, is_paired(metric))
            for group in groups if is_paired(metric) else [_together(groups)]:
                _add_values(values[name], group, metric)
    return scores, values


def _over_groups(
    groups: Sequence[Group], count: Callable[..., dict[Pair, Outcomes]], *arguments: object
) -> dict[Pair, Outcomes]:
    return {pair: outcome for group in groups for pair, outcome in count(group, *arguments).items()}


def _together(groups: Sequence[Group]) -> Group:
    """All systems, for metrics that do not ask which image belongs to which."""
    return Group(
        systems=[system for group in groups for system in group.systems],
        banks=[bank for group in groups for bank in group.banks],
        features=[features for group in groups for features in group.features],
        shuffle=None,
    )


def _outcomes(group: Group, name: str, rule: _Rule) -> dict[Pair, Outcomes]:
    """What each pair of a group, a system with itself included, gave on each noise."""
    inputs, pairs = rule.inputs(group), group.pairs()
    same = pair_values(inputs, rule.matrix, title=name)
    matches, values = rule.holds(same, rule.threshold).numpy(), same.numpy()
    if group.shuffle is None:
        return {pair: Outcomes(matches[row], values=values[row]) for row, pair in enumerate(pairs)}
    shuffled = pair_values(inputs, rule.matrix, group.shuffle, f"{name}, shuffled noises")
    control, control_values = rule.holds(shuffled, rule.threshold).numpy(), shuffled.numpy()
    return {
        pair: Outcomes(matches[row], control[row], values[row], control_values[row]) for row, pair in enumerate(pairs)
    }


def _matched(group: Group, name: str, metric: PairMetric) -> dict[Pair, Outcomes]:
    inputs, outcomes = group.inputs(metric), {}
    pairs = zip(pairs_of(len(inputs)), group.pairs(), strict=True)
    for (i, j), pair in tqdm(list(pairs), desc=name, unit="pair", delay=2.0, leave=False):
        control = None
        if group.shuffle is not None:
            control = metric.match(inputs[i], inputs[j][group.shuffle]).cpu().numpy()
        outcomes[pair] = Outcomes(metric.match(inputs[i], inputs[j]).cpu().numpy(), control)
    return outcomes


def _add_values(values: PairValues, group: Group, metric: Metric) -> None:
    """Fills in the cells of one group."""
    inputs, name = group.inputs(metric), values.name
    pairs = list(combinations(range(len(inputs)), 2))
    for i, j in tqdm(pairs, desc=name, unit="pair", delay=2.0, leave=False):
        pair = group.systems[i], group.systems[j]
        values.values[pair] = values.values[pair[::-1]] = metric_value(metric, name, inputs[i], inputs[j])
        if values.control is not None and group.shuffle is not None:
            shuffled = metric_value(metric, name, inputs[i], inputs[j][group.shuffle])
            values.control[pair] = values.control[pair[::-1]] = shuffled


def between_scores(groups: Sequence[Group], count: int, conditions: Conditions) -> dict[str, PairCounts]:
    """Counts between RP of every unconditional with every conditional system, where there are both."""
    if len(groups) < 2:
        return {}
    plain, conditional = groups
    threshold = conditions.threshold
    each = conditional.banks[0].manifest.images_per_seed
    noises = len(plain.banks[0])
    shuffle = derangement(noises, conditions.control_seed) if noises > 1 else None
    outcomes, rows = {}, np.arange(noises)
    for i, own in zip(plain.systems, plain.features, strict=True):
        for j, others in zip(conditional.systems, conditional.features, strict=True):
            under = others.unflatten(0, (noises, each))
            matches, similarity, label = (part.numpy() for part in between_matches(own, under, threshold))
            control = between_matches(own, under[shuffle], threshold) if shuffle is not None else (None, None)
            ordered = [rows, rows * each + label]
            outcomes[min(i, j), max(i, j)] = Outcomes(
                matches,
                None if control[0] is None else control[0].numpy(),
                similarity,
                None if control[1] is None else control[1].numpy(),
                *(ordered if i < j else ordered[::-1]),
            )
    return {"Between RP": PairCounts.of("Between RP", count, outcomes, ">", threshold)}
