"""Values of every pair of K systems on every noise: the one pass that matrices, classes and comparisons share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from repro.devices import onto

__all__ = ["pair_values", "pairs_of"]


def pairs_of(systems: int) -> list[tuple[int, int]]:
    """Lists the pairs (i, j), i <= j, of K systems, those of a system with itself included.

    Example:
        >>> pairs_of(2)
        [(0, 0), (0, 1), (1, 1)]
    """
    return [(i, j) for i in range(systems) for j in range(i, systems)]


@torch.no_grad()
def pair_values(
    systems: Sequence[Tensor],
    matrix: Callable[..., Tensor],
    order: Tensor | None = None,
    title: str = "",
    elements: int = 1 << 22,
) -> Tensor:
    """Computes one number for every pair of systems and every noise, in memory that does not grow with the noises.

    Args:
        systems: Features or pixels of K systems on the same n noises, (n, d) each.
        matrix: From (m, K, d), or two of them, to (m, K, K), such as
            :func:`~repro.metrics.functional.similarity.cosine_matrix`; only entries (i, j, k) with j <= k are used.
        order: Noises of the second of each pair, int64 (n,), for a control; the same noises when left out.
        title: Beside a progress bar, which comes after two seconds; empty for none.
        elements: Numbers of all systems that are looked at together; 2^22 take 32 MB in float64.

    Returns:
        Shape (pairs, n), pairs as in :func:`pairs_of`.
    """
    first, second = onto(systems[0].device, torch.tensor(pairs_of(len(systems)))).T
    step = max(1, elements // (len(systems) * systems[0].shape[1]))
    starts = range(0, len(systems[0]), step)
    parts = []
    for start in tqdm(starts, desc=title, unit="chunk", delay=2.0, leave=False, disable=not title):
        rows = slice(start, start + step)
        own = torch.stack([system[rows] for system in systems], dim=1)
        others = () if order is None else (torch.stack([system[order[rows]] for system in systems], dim=1),)
        parts.append(matrix(own, *others)[:, first, second])
    return torch.cat(parts).T.contiguous()
