"""Which samples have any training image above a threshold: bounds first, exact where they leave it open.

For unit vectors u, v and an orthonormal basis of k directions, with coordinates a, b and what the basis misses of
lengths r, s, the similarity lies within :math:`\\langle a, b \\rangle \\pm r s`. Most pairs are far below the threshold
by that bound alone, at k of d multiplications each; copies far above it are known at once and need no further look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.metrics.functional.similarity import (
    check_threshold,
    compared_dtype,
    cosine,
    divided,
    exceeds,
    row_lengths,
    two_features,
    unit_rows,
)

__all__ = ["have_copies"]

ROWS_AT_ONCE = 65_536
ROWS_A_PRODUCT = 2048
TRAIN_AT_ONCE = 512
_SEEN_TRAIN, _SEEN_SAMPLES = 4096, 256
_PAIR_COST = 100.0
_CROWDED = 1 / 64


@dataclass(frozen=True)
class _Basis:
    """Orthonormal directions as rows (k, d) in float32, or None for all d; and a bound of every error."""

    directions: Tensor | None
    error: float

    def coordinates(self, unit: Tensor) -> Tensor:
        """Coordinates of unit rows and, last, the length of what they miss: their products bound the similarity."""
        if self.directions is None:
            return unit
        kept = unit @ self.directions.T
        missed = (unit.square().sum(1, dtype=torch.float64) - kept.square().sum(1, dtype=torch.float64)).clamp(min=0)
        # rounding must not make the missed part shorter than it is, where its square root is steep
        return torch.cat([kept, (missed + self.error).sqrt().float()[:, None]], 1)


@torch.no_grad()
def have_copies(features: Any, train_features: Any, threshold: float = 0.6) -> Tensor:
    r"""Says which samples are copies of a training image: :math:`\max_y M(x_i, y) > \tau`, exactly.

    The same answer as :func:`~repro.metrics.functional.similarity.nearest` and a comparison, without the maximum, in
    less time than one float32 product of all pairs where most pairs are far from the threshold. Training features may
    lie on the disk (``numpy.load(file, mmap_mode="r")``): they are read once for every 65,536 samples, and memory above
    the samples stays below 300 MB.

    Args:
        features: Floating (n, d) features or uint8 (n, C, H, W) images of the samples.
        train_features: The same of the training set, at least one.
        threshold: tau in [-1, 1]; strict.

    Returns:
        Bool, shape (n,), on the samples' device.

    Raises:
        UserError: as :func:`~repro.metrics.functional.similarity.nearest`, or a threshold outside [-1, 1].

    Example:
        >>> have_copies(torch.eye(3), torch.eye(3)[:1]).tolist()
        [True, False, False]
    """
    threshold = check_threshold(threshold)
    features, train = two_features(features, train_features)
    with torch.autocast(features.device.type, enabled=False):
        basis = _chosen_basis(features, train, threshold)
        parts = [_of_rows(part, train, threshold, basis) for part in features.split(ROWS_AT_ONCE)]
    return torch.cat(parts)


def _of_rows(samples: Tensor, train: Tensor, threshold: float, basis: _Basis) -> Tensor:
    copies = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    lengths = row_lengths(samples)
    unit = unit_rows(samples, lengths)
    whole = _Basis(None, _error(samples.shape[1]))
    left, coordinates = torch.arange(len(samples), device=samples.device), basis.coordinates(unit)
    scratch = unit.new_empty(min(ROWS_A_PRODUCT, len(samples)) * TRAIN_AT_ONCE)
    for start in range(0, len(train), TRAIN_AT_ONCE):
        part = train[start : start + TRAIN_AT_ONCE].to(samples.device)
        part_lengths = row_lengths(part)
        others = basis.coordinates(unit_rows(part, part_lengths))
        crowded = 0
        for rows, own in zip(left.split(ROWS_A_PRODUCT), coordinates.split(ROWS_A_PRODUCT), strict=True):
            bounds = scratch[: len(own) * len(others)].view(len(own), len(others))
            torch.mm(own, others.T, out=bounds)
            open_rows = (bounds.amax(1) > threshold - basis.error).nonzero().squeeze(1)
            if not len(open_rows):
                continue
            pairs = (bounds[open_rows] > threshold - basis.error).nonzero()
            if len(pairs) > _CROWDED * bounds.numel():
                crowded += len(open_rows)
            chosen = rows[open_rows]
            if len(pairs) > _CROWDED * len(open_rows) * len(part):
                products = samples[chosen].double() @ part.double().T
                exact = divided(products, lengths[chosen, None] * part_lengths).to(compared_dtype(samples, part))
                copies[chosen] |= exceeds(exact, threshold).any(1)
            else:
                first = chosen[pairs[:, 0]]
                copies[first[exceeds(cosine(samples[first], part[pairs[:, 1]]), threshold)]] = True
        keep = ~copies[left]
        left, coordinates = left[keep], coordinates[keep]
        if not len(left):
            break
        if basis.directions is not None and crowded > len(left) / 4:
            basis, coordinates = whole, unit[left]
    return copies


def _chosen_basis(features: Tensor, train: Tensor, threshold: float) -> _Basis:
    """Principal directions of some training features, as many as make the whole search cheapest; all where none pay."""
    size = train.shape[1]
    error = _error(size)
    whole = _Basis(None, error)
    if len(features) < 2 * size or len(train) < 4 * size:  # finding the directions would cost more than it saves
        return whole
    some = [_spread(each, count) for each, count in ((features, _SEEN_SAMPLES), (train, _SEEN_TRAIN))]
    samples, others = (unit_rows(each, row_lengths(each)).double() for each in some)
    known, others = others[::2], others[1::2]  # directions fit the rows that they are found from better than others
    directions = torch.linalg.eigh(known.T @ known).eigenvectors.flip(1).T
    samples, others = samples @ directions.T, others @ directions.T
    samples = samples[~((samples @ others.T) > threshold).any(1)]
    if not len(samples):
        return whole
    costs = {size: 1.0}
    for kept in range(size // 8, size, max(1, size // 16)):
        bounds = samples[:, :kept] @ others[:, :kept].T
        bounds += samples[:, kept:].norm(dim=1)[:, None] * others[:, kept:].norm(dim=1)
        open_share = float((bounds > threshold - 2 * error).double().mean())
        costs[kept] = (kept + 1) / size + kept / len(features) + _PAIR_COST * open_share
    best = min(costs, key=lambda kept: costs[kept])
    if best == size:
        return whole
    chosen = directions[:best].float().contiguous()
    slack = float((chosen.double() @ chosen.double().T - torch.eye(best, dtype=torch.float64)).norm())
    return _Basis(chosen.to(features.device), 2 * error + 3 * slack)


def _spread(rows: Tensor, count: int) -> Tensor:
    """Some rows, evenly spread, on the CPU."""
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long().to(rows.device)].cpu()


def _error(size: int) -> float:
    """Bound of the error of a similarity from float32 products of unit rows, also where matrix precision is lowered."""
    try:
        plain = torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:
        plain = False
    return 4 * (size + 16) * 2.0**-24 + (0.0 if plain else 2.0**-6)
