"""Wilson's interval solves its equation and equals scipy's."""

import math

import pytest
import scipy.stats

from repro.errors import UserError
from repro.metrics import functional


def test_wilson_interval_solves_its_equation():
    """The limits are the rates p at which the observed rate lies z standard errors away."""
    z = 1.959963984540054
    for successes, n in ((1, 10), (5, 10), (93, 100), (6000, 10000)):
        for limit in functional.wilson_interval(successes, n):
            assert abs(successes / n - limit) == pytest.approx(z * math.sqrt(limit * (1 - limit) / n), rel=1e-9)


def test_wilson_interval_at_the_ends():
    low, high = functional.wilson_interval(0, 100)
    assert low == 0
    assert high == pytest.approx(1.959963984540054**2 / (100 + 1.959963984540054**2))
    assert functional.wilson_interval(100, 100) == pytest.approx((1 - high, 1))
    assert functional.wilson_interval(5, 10, 0.99)[0] < functional.wilson_interval(5, 10)[0]


@pytest.mark.parametrize("arguments", [(0, 0), (3, 2), (-1, 4), (1, 2, 1.0), (1, 2, 0.0)])
def test_wilson_interval_of_nonsense(arguments):
    with pytest.raises(UserError):
        functional.wilson_interval(*arguments)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 17), (412, 1000), (9999, 10_000)])
def test_wilson_interval_equals_scipy(successes, n, confidence):
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert functional.wilson_interval(successes, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)
