"""The order of images as a function of position, so that a run can begin anywhere and see the same images.

Every number here is a word of the counter-based generator Philox-4x64 (Salmon et al. 2011, doi:10.1145/2063384.2063405)
under a key (seed, purpose): it needs no state and does not depend on the machine, the library's version or what was
drawn before.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["flips_at", "items_at", "permutation", "subset_order"]

_FLIPS = 2**63
_SUBSET = 2**63 + 1


def _words(seed: int, purpose: int, first: int, count: int) -> NDArray[np.uint64]:
    generator = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64))
    generator.advance(first // 4)
    return generator.random_raw(first % 4 + count)[first % 4 :]


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order in which pass number ``epoch`` visits ``size`` items; read-only int64 (size,).

    Example:
        >>> sorted(permutation(0, 3, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    order = np.argsort(_words(seed, epoch, 0, size), kind="stable")
    order.setflags(write=False)
    return order


def subset_order(seed: int, size: int) -> NDArray[np.int64]:
    """The order in which subsets take items: a subset of N is the first N of it, so subsets are nested. int64 (size,).

    Example:
        >>> sorted(subset_order(0, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    return np.argsort(_words(seed, _SUBSET, 0, size), kind="stable")


def items_at(seed: int, size: int, first: int, count: int) -> NDArray[np.int64]:
    """The items at positions ``first .. first + count - 1`` of the endless stream; int64 (count,).

    Position p is item ``permutation(seed, p // size, size)[p % size]``.

    Args:
        seed: Number of the order.
        size: How many items there are.
        first: Position of the first one: how many items were seen before.
        count: How many to name.

    Example:
        >>> items_at(0, 5, 0, 20)[7:11].tolist() == items_at(0, 5, 7, 4).tolist()
        True
    """
    epochs = range(first // size, (first + count - 1) // size + 1)
    orders = np.concatenate([permutation(seed, epoch, size) for epoch in epochs])
    begin = first - epochs.start * size
    return orders[begin : begin + count]


def flips_at(seed: int, first: int, count: int) -> NDArray[np.bool_]:
    """Whether the images at positions ``first .. first + count - 1`` are mirrored: fair coins, bool (count,)."""
    return (_words(seed, _FLIPS, first, count) >> np.uint64(63)).astype(bool)
