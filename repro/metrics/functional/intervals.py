"""Confidence intervals of the rates that the scores are."""

from __future__ import annotations

from statistics import NormalDist

from repro.errors import UserError

__all__ = ["check_confidence", "wilson_interval"]


def check_confidence(confidence: float) -> float:
    """Returns the coverage of an interval as a float.

    Raises:
        UserError: outside (0, 1).
    """
    if not 0 < float(confidence) < 1:
        raise UserError(f"confidence {confidence} is outside (0, 1); 0.95 is usual")
    return float(confidence)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Computes Wilson's score interval of a probability of which ``successes`` of ``n`` independent trials were seen.

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad p = s/n

    It stays inside [0, 1] and says something at 0 and n too, where the usual normal interval has no width.

    Args:
        successes: Number of successes, 0 to n.
        n: Number of trials, at least 1.
        confidence: Coverage, in (0, 1).

    Returns:
        Lower and upper limit.

    Raises:
        UserError: no trial, successes outside 0 .. n, or a confidence outside (0, 1).

    Source: Wilson 1927, Journal of the American Statistical Association 22:209.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 4), round(high, 4)
        (0.4902, 0.9433)
    """
    successes, n = int(successes), int(n)
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"{successes} successes of {n} trials are no rate; give n >= 1 and 0 <= successes <= n")
    z = NormalDist().inv_cdf((1 + check_confidence(confidence)) / 2)
    rate = successes / n
    centre = rate + z * z / (2 * n)
    half = z * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high
