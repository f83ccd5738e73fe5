"""RP: how often two models draw the same image from the same noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.similarity import as_features, check_threshold, cosine, exceeds

__all__ = ["reproducibility_matches", "reproducibility_score"]


def reproducibility_matches(a: Any, b: Any, threshold: float = 0.6) -> Tensor:
    """Which pairs count as the same image: M(a_i, b_i) > threshold, strictly; bool, shape (n,).

    Args:
        a: Of the first model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        b: Of the second model, in the same order.
        threshold: Similarity in [-1, 1].

    Raises:
        UserError: different sizes, no row, values that are not finite, or a threshold outside [-1, 1].
    """
    threshold = check_threshold(threshold)
    a, b = as_features(a, "the first features"), as_features(b, "the second features")
    if a.shape != b.shape:
        raise UserError(
            f"the first features have shape {tuple(a.shape)}, the second {tuple(b.shape)}; "
            "compare the same noises under one descriptor"
        )
    return exceeds(cosine(a, b), threshold)


def reproducibility_score(a: Any, b: Any, threshold: float = 0.6) -> float:
    r"""RP score of two models: the share of noises from which both draw the same image; higher is more alike.

    .. math:: \mathrm{RP} = P\big(M(x_1, x_2) > \tau\big), \qquad
              M(x_1, x_2) = \frac{\langle E(x_1), E(x_2) \rangle}{|E(x_1)| \, |E(x_2)|}

    Features need not be normalised. Images go through the descriptor ``Pixels``; the paper's E is ``SSCD``.

    Args:
        a: Of the first model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        b: Of the second model, in the same order.
        threshold: tau in [-1, 1]; strict. The paper takes 0.6 for SSCD.

    Returns:
        Rate in [0, 1].

    Raises:
        UserError: as :func:`reproducibility_matches`.

    Source: Zhang et al. 2024 (arXiv:2310.05264), section 2.

    Example:
        >>> import torch
        >>> reproducibility_score(torch.eye(2), torch.tensor([[2.0, 1.0], [2.0, 1.0]]))
        0.5
    """
    matches = reproducibility_matches(a, b, threshold)
    return int(matches.sum()) / len(matches)
