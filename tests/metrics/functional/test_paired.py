"""Paired tests equal enumerations and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from repro.errors import UserError
from repro.metrics import functional
from repro.metrics.functional.paired import adjusted_p_values, paired_tests


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (40, 22), (0, 12)])
def test_mcnemar_equals_an_enumeration(counts):
    """Of b + c discordant noises each favours either side with chance 1/2: outcomes as unlikely as the one seen."""
    b, c = counts
    first = torch.tensor([True] * b + [False] * c + [True] * 7 + [False] * 4)
    second = torch.tensor([False] * b + [True] * c + [True] * 7 + [False] * 4)
    found = functional.mcnemar_test(first, second)
    total = b + c
    chances = [math.comb(total, k) / 2**total for k in range(total + 1)]
    expected = sum(chance for chance in chances if chance <= chances[b] * (1 + 1e-12))
    assert found.p_value == pytest.approx(expected, rel=1e-10)
    assert total == 0 or found.p_value == pytest.approx(scipy.stats.binomtest(b, total).pvalue, rel=1e-10)
    assert (found.only_first, found.only_second, found.n) == (b, c, len(first))
    assert found.difference == pytest.approx(found.first - found.second, abs=1e-15)
    assert found.low < found.difference < found.high or total == 0
    back = functional.mcnemar_test(second, first)
    assert (back.p_value, back.difference) == (found.p_value, -found.difference)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def counted(first, second):
    return [(one & two).sum(1) for one, two in ((first, ~second), (~first, second), (first, second))]


def test_the_test_keeps_its_level_and_the_interval_its_coverage():
    """Over repeated draws of 60 noises: equal rates are told apart in at most 5 %, limits hold a difference in 95 %."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 4000, 60)) < 0.6
    second[:, 30:] = first[:, 30:]
    found = paired_tests(*counted(first, second), [60] * 4000)
    assert sum(test.p_value < 0.05 for test in found) / 4000 <= 0.05
    second = first & (generator.random((4000, 60)) < 0.75)
    found = paired_tests(*counted(first, second), [60] * 4000)
    assert 0.94 <= sum(test.low <= 0.6 * 0.25 <= test.high for test in found) / 4000 <= 0.985


def test_is_a_more_like_b_than_like_c():
    a = gaussian(200, 16)
    b, c = a + 0.5 * gaussian(200, 16, seed=1), a + 0.9 * gaussian(200, 16, seed=2)
    found = functional.paired_reproducibility_test(a, b, c, 0.7)
    assert found.first == functional.reproducibility_score(a, b, 0.7)
    assert found.second == functional.reproducibility_score(a, c, 0.7)
    assert found.p_value < 1e-6
    assert functional.paired_reproducibility_test(a, b, b, 0.7).p_value == 1


def test_adjusted_p_values_follow_holms_steps():
    values = [0.04, 0.001, 0.03, 0.5, 0.001, 0.2]
    order = sorted(range(6), key=lambda place: values[place])
    expected, worst = [0.0] * 6, 0.0
    for step, place in enumerate(order):
        worst = max(worst, min(1.0, values[place] * (6 - step)))
        expected[place] = worst
    assert adjusted_p_values(values) == pytest.approx(expected)
    assert adjusted_p_values([]) == []


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda f, x: f.reproducibility_curve(x, x, []), "no threshold"),
        (lambda f, x: f.reproducibility_curve(x, x, [0.5, 1.5]), "1.5 is outside"),
        (lambda f, x: f.reproducibility_curve(x, x[:2]), "(2, 3)"),
        (lambda f, x: f.generalization_curve(x, x[:0]), "train_features"),
        (lambda f, x: f.reproducibility_matrix(x), "(n, K, d)"),
        (lambda f, x: f.reproducibility_matrix([x, x[:2]]), "shapes (4, 3), (2, 3)"),
        (lambda f, x: f.reproducibility_matrix([]), "shapes none"),
        (lambda f, x: f.mcnemar_test([True], [True, False]), "one length"),
        (lambda f, x: f.mcnemar_test([1, 0], [0, 1]), "int64"),
        (lambda f, x: f.mcnemar_test([True], [True], 1.0), "(0, 1)"),
        (lambda f, x: f.paired_reproducibility_test(x, x, x[:3]), "(3, 3)"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call(functional, gaussian(4, 3))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
