"""Outcomes of every pair of systems on every noise, in one pass over the noises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from tqdm import tqdm

from repro.banks import Bank
from repro.comparison.results import Outcomes, PairCounts, PairValues
from repro.errors import UserError
from repro.metrics.base import PairMetric
from repro.metrics.functional.conditional import between_matches
from repro.metrics.functional.mae import absolute_difference_matrix
from repro.metrics.functional.similarity import cosine_matrix, exceeds
from repro.metrics.protocol import feed, is_paired, pick, value_of

__all__ = ["Group", "between_scores", "derangement", "groups_of", "pair_scores"]

_ELEMENTS = 1 << 22
_KINDS = ("places", "banks", "features")


def derangement(n: int, seed: int) -> Tensor:
    """A fixed shuffle of n >= 2 places that leaves none where it was: a random cycle through all of them.

    Example:
        >>> bool((derangement(1000, 0) == torch.arange(1000)).any())
        False
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = torch.empty_like(order)
    shuffled[order] = order.roll(-1)
    return shuffled


@dataclass(frozen=True)
class Group:
    """Systems whose images belong together one by one: all unconditional, or all of the same noises and classes.

    Attributes:
        places: Of the systems among all that are compared.
        banks: Of the systems.
        features: Of their images, (n, d) each.
        shuffle: For each image another one, of another noise and the same class; None where there is none.
    """

    places: list[int]
    banks: list[Bank]
    features: list[Tensor]
    shuffle: Tensor | None


def groups_of(banks: Sequence[Bank], features: Sequence[Tensor], control_seed: int) -> list[Group]:
    """The unconditional systems and the conditional ones, each where there are any."""
    groups = []
    for conditional in (False, True):
        places = [place for place, bank in enumerate(banks) if (bank.labels is not None) == conditional]
        if places:
            own = [banks[place] for place in places]
            shuffle = _shuffled(len(own[0]), own[0].labels, control_seed)
            groups.append(Group(places, own, [features[place] for place in places], shuffle))
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


def pair_scores(
    groups: Sequence[Group], count: int, threshold: float, mae_threshold: float, metrics: Mapping[str, Metric]
) -> tuple[dict[str, PairCounts], dict[str, PairValues]]:
    """RP, MAE and further metrics of every pair inside each group; distances of whole sets of every pair.

    Args:
        groups: Of :func:`groups_of`.
        count: Number of systems.
        threshold: Of RP.
        mae_threshold: Of MAE.
        metrics: Of :func:`repro.metrics.protocol.pair_metrics`.
    """
    found: dict[str, dict[tuple[int, int], Outcomes]] = {}
    values: dict[str, PairValues] = {}
    for group in groups:
        pixels = [bank.images.flatten(1) for bank in group.banks]
        made = {
            "RP": _outcomes(group, group.features, "RP", cosine_matrix, lambda x: exceeds(x, threshold)),
            "MAE": _outcomes(group, pixels, "MAE", absolute_difference_matrix, lambda x: x < mae_threshold),
        }
        for name, metric in metrics.items():
            if isinstance(metric, PairMetric):
                made[name] = _matched(group, metric)
            elif is_paired(metric):
                _add_values(values.setdefault(name, PairValues.empty(name, count, metric)), group, metric, name)
        for name, outcomes in made.items():
            found.setdefault(name, {}).update(outcomes)
    for name, metric in metrics.items():
        if not is_paired(metric):
            values[name] = PairValues.empty(name, count, metric)
            _add_values(values[name], _together(groups), metric, name)
    limits = {"RP": (">", threshold), "MAE": ("<", mae_threshold)}
    scores = {
        name: PairCounts.of(name, count, outcomes, *limits.get(name, ("", None))) for name, outcomes in found.items()
    }
    return scores, values


def _together(groups: Sequence[Group]) -> Group:
    """All systems, for metrics that do not ask which image belongs to which."""
    places, banks, features = ([item for group in groups for item in getattr(group, kind)] for kind in _KINDS)
    return Group(places, banks, features, None)


def _over_noises(systems: Sequence[Tensor], title: str) -> Iterator[slice]:
    """Slices of noises such that all pairs of all systems fit in memory, with a progress bar."""
    step = max(1, _ELEMENTS // (len(systems) * systems[0][0].numel()))
    starts = range(0, len(systems[0]), step)
    return (slice(start, start + step) for start in tqdm(starts, desc=title, unit="chunk", delay=2.0, leave=False))


def _outcomes(
    group: Group,
    inputs: Sequence[Tensor],
    title: str,
    matrix: Callable[..., Tensor],
    holds: Callable[[Tensor], Tensor],
) -> dict[tuple[int, int], Outcomes]:
    """What each pair of the group, a system with itself included, gave on each noise.

    Args:
        group: The systems.
        inputs: Their features or pixels, (n, d) each.
        title: Beside the progress bar.
        matrix: From (n, K, d), or two of them, to (n, K, K).
        holds: From entries of it to bool.
    """
    first, second = torch.triu_indices(len(inputs), len(inputs))
    values: list[list[Tensor]] = [[], []]
    for rows in _over_noises(inputs, title):
        own = torch.stack([item[rows] for item in inputs], dim=1)
        values[0].append(matrix(own)[:, first, second])
        if group.shuffle is not None:
            other = torch.stack([item[group.shuffle[rows]] for item in inputs], dim=1)
            values[1].append(matrix(own, other)[:, first, second])
    same, shuffled = (torch.cat(parts).T.contiguous() if parts else None for parts in values)
    return {
        (group.places[int(i)], group.places[int(j)]): Outcomes(
            matches=holds(same[row]).numpy(),
            control=None if shuffled is None else holds(shuffled[row]).numpy(),
            values=same[row].numpy(),
            control_values=None if shuffled is None else shuffled[row].numpy(),
        )
        for row, (i, j) in enumerate(zip(first, second, strict=True))
    }


def _matched(group: Group, metric: PairMetric) -> dict[tuple[int, int], Outcomes]:
    inputs = pick(metric, group.features, [bank.images for bank in group.banks])
    found = {}
    for i, j in combinations_with_replacement(range(len(inputs)), 2):
        matches = metric.match(inputs[i], inputs[j]).cpu().numpy()
        shuffle = group.shuffle
        control = None if shuffle is None else metric.match(inputs[i], inputs[j][shuffle]).cpu().numpy()
        found[group.places[i], group.places[j]] = Outcomes(matches, control)
    return found


def _add_values(values: PairValues, group: Group, metric: Metric, name: str) -> None:
    """Fills in the cells of one group."""
    inputs = pick(metric, group.features, [bank.images for bank in group.banks])
    pairs = list(combinations(range(len(inputs)), 2))
    for i, j in tqdm(pairs, desc=name, unit="pair", delay=2.0, leave=False):
        place = group.places[i], group.places[j]
        values.fill(values.values, place, metric_value(metric, name, inputs[i], inputs[j]))
        if values.control is not None and group.shuffle is not None:
            shuffled = metric_value(metric, name, inputs[i], inputs[j][group.shuffle])
            values.fill(values.control, place, shuffled)


def metric_value(metric: Metric, name: str, a: Tensor, b: Tensor) -> float:
    """The value of a metric on two sets; the metric is not changed."""
    fresh = metric.clone()
    fresh.reset()
    try:
        feed(fresh, a, b)
        return value_of(fresh, name)
    except UserError as error:
        raise UserError(f"metric {name}: {error}") from error


def between_scores(groups: Sequence[Group], count: int, threshold: float, control_seed: int) -> dict[str, PairCounts]:
    """Between RP of every unconditional with every conditional system, where there are both."""
    if len(groups) < 2:
        return {}
    plain, conditional = groups
    each = conditional.banks[0].manifest.images_per_seed
    noises = len(plain.banks[0])
    shuffle = derangement(noises, control_seed) if noises > 1 else None
    outcomes = {}
    rows = np.arange(noises)
    for i, own in zip(plain.places, plain.features, strict=True):
        for j, others in zip(conditional.places, conditional.features, strict=True):
            under = others.unflatten(0, (noises, each))
            matches, similarity, label = (found.numpy() for found in between_matches(own, under, threshold))
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
