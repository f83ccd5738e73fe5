"""Is one pair of models more alike than another, on the same noises?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch

from repro.errors import UserError
from repro.metrics.functional.intervals import check_confidence
from repro.metrics.functional.reproducibility import reproducibility_matches

__all__ = ["PairedTest", "adjusted_p_values", "mcnemar_test", "paired_reproducibility_test", "paired_tests"]


class PairedTest(NamedTuple):
    """Two rates on the same noises, and whether they differ.

    Attributes:
        first: The first rate.
        second: The second rate.
        difference: First minus second.
        low: Lower 95 % limit of the difference.
        high: Upper limit.
        only_first: Noises for which only the first holds.
        only_second: Noises for which only the second holds.
        n: Number of noises.
        p_value: Of a difference at least as large, when there is none; two-sided and exact.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    n: int
    p_value: float


def mcnemar_test(first: Any, second: Any, confidence: float = 0.95) -> PairedTest:
    r"""Tests two rates that were seen on the same noises against each other (McNemar's exact test).

    Only noises on which the two disagree say anything: of :math:`b + c` of them, :math:`b` favour the first, and under
    equal rates :math:`b \sim \mathrm{Bin}(b + c, 1/2)`. The limits of the difference are Bonett and Price's.

    Args:
        first: Whether it holds for noise i, bool (n,).
        second: The same of the other, on the same noises in the same order.
        confidence: Coverage of the limits, in (0, 1).

    Returns:
        Rates, difference with limits, discordant counts and p-value.

    Raises:
        UserError: not bool, different lengths, no noise, or a confidence outside (0, 1).

    Source: McNemar 1947, Psychometrika 12:153; Bonett and Price 2012, Journal of Educational and Behavioral
    Statistics 37:479.

    Example:
        >>> found = mcnemar_test([True] * 9 + [False], [False] * 8 + [True] * 2)
        >>> found.only_first, found.only_second, found.p_value
        (8, 1, 0.0390625)
    """
    x, y = torch.as_tensor(first), torch.as_tensor(second)
    if x.dtype != torch.bool or y.dtype != torch.bool or x.ndim != 1 or x.shape != y.shape or not len(x):
        raise UserError(
            f"a paired test takes two bool vectors of one length, n >= 1; these are {x.dtype} {tuple(x.shape)} and "
            f"{y.dtype} {tuple(y.shape)}"
        )
    return paired_tests([int((x & ~y).sum())], [int((~x & y).sum())], [int((x & y).sum())], [len(x)], confidence)[0]


def paired_tests(
    only_first: Sequence[int],
    only_second: Sequence[int],
    both: Sequence[int],
    n: Sequence[int],
    confidence: float = 0.95,
) -> list[PairedTest]:
    """Makes many tests at once from their counts; see :func:`mcnemar_test`.

    Args:
        only_first: Noises for which only the first holds.
        only_second: Noises for which only the second holds.
        both: Noises for which both hold.
        n: Numbers of noises.
        confidence: Coverage of the limits, in (0, 1).
    """
    from scipy.stats import binom

    b, c, shared, count = (np.asarray(values, dtype=np.int64) for values in (only_first, only_second, both, n))
    p_values = np.minimum(1.0, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5))
    z = NormalDist().inv_cdf((1 + check_confidence(confidence)) / 2)
    up, down = (b + 1) / (count + 2), (c + 1) / (count + 2)
    half = z * np.sqrt((up + down - (up - down) ** 2) / (count + 2))
    low, high = np.maximum(-1.0, up - down - half), np.minimum(1.0, up - down + half)
    rows = zip(
        (b + shared) / count, (c + shared) / count, (b - c) / count, low, high, b, c, count, p_values, strict=True
    )
    return [PairedTest(*(value.item() for value in row)) for row in rows]


def paired_reproducibility_test(a: Any, b: Any, c: Any, threshold: float = 0.6) -> PairedTest:
    """Tests whether RP(A, B) differs from RP(A, C) on the same noises (McNemar's exact test).

    Args:
        a: Of model A, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        b: Of model B, in the same order.
        c: Of model C, in the same order.
        threshold: Similarity in [-1, 1] above which, strictly, two images are the same.

    Raises:
        UserError: as :func:`~repro.metrics.functional.reproducibility_score`.

    Example:
        >>> a = torch.eye(8)
        >>> paired_reproducibility_test(a, a, -a).p_value
        0.0078125
    """
    return mcnemar_test(reproducibility_matches(a, b, threshold), reproducibility_matches(a, c, threshold))


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """Computes p-values for all tests of a family together (Holm): below 0.05 holds for all of them at once.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.

    Example:
        >>> adjusted_p_values([0.01, 0.5, 0.02])
        [0.03, 0.5, 0.04]
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(values) else scaled
    return adjusted.tolist()
