from __future__ import annotations

import numpy as np
import pytest

from repro.data.order import flips_at, items_at, permutation, subset_order


def test_positions_follow_the_permutations_from_anywhere():
    size = 7
    slow = [int(permutation(3, p // size, size)[p % size]) for p in range(100)]
    for first, count in [(0, 1), (0, 100), (6, 2), (13, 40), (99, 1)]:
        assert items_at(3, size, first, count).tolist() == slow[first : first + count]


def test_words_are_those_of_numpys_philox_drawn_in_order():
    raw = np.random.Philox(key=np.array([5, 2**63], dtype=np.uint64)).random_raw(50)
    for first in (0, 1, 3, 4, 5, 31):
        assert flips_at(5, first, 50 - first).tolist() == (raw[first:] >> np.uint64(63)).astype(bool).tolist()
    order = np.argsort(np.random.Philox(key=np.array([5, 9], dtype=np.uint64)).random_raw(50), kind="stable")
    assert permutation(5, 9, 50).tolist() == order.tolist()


def test_the_order_never_changes_between_versions():
    assert permutation(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert permutation(1, 2, 8).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]
    assert subset_order(0, 8).tolist() == [2, 7, 0, 5, 3, 6, 1, 4]
    assert flips_at(0, 0, 8).astype(int).tolist() == [1, 1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_flips_are_fair_and_neighbours_independent(seed):
    flips = flips_at(seed, 0, 40_000).astype(float)
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / 200
    assert abs(np.corrcoef(flips[:-1], flips[1:])[0, 1]) < 4 / 200


def test_permutations_are_uniform_and_differ_between_seeds_and_passes():
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[np.arange(5), permutation(0, epoch, 5)] += 1
    assert (abs(counts - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5).all()
    orders = {tuple(permutation(seed, epoch, 100)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
