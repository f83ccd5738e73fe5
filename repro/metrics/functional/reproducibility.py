"""RP: how often two models draw the same image from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repro.devices import onto
from repro.errors import UserError
from repro.metrics.functional.pairs import pair_values, pairs_of
from repro.metrics.functional.similarity import as_features, check_threshold, cosine, cosine_matrix, exceeds, same_shape

__all__ = [
    "reproducibility_matches",
    "reproducibility_matrix",
    "reproducibility_matrix_matches",
    "reproducibility_score",
]


def reproducibility_matches(a: Any, b: Any, threshold: float = 0.6) -> Tensor:
    """Says which pairs count as the same image: M(a_i, b_i) > threshold, strictly; bool, shape (n,).

    Args:
        a: Of the first model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        b: Of the second model, in the same order.
        threshold: Similarity in [-1, 1].

    Raises:
        UserError: different sizes, no row, values that are not finite, or a threshold outside [-1, 1].
    """
    threshold = check_threshold(threshold)
    return exceeds(cosine(*same_shape(a, b)), threshold)


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


def stacked_features(value: Any) -> Tensor:
    """Features of K systems on n noises, (n, K, d): from such a tensor, K of shape (n, d), or images in either form.

    Raises:
        UserError: as :func:`~repro.metrics.functional.similarity.as_features`, or systems of different sizes.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [as_features(part, f"the features of system {number}") for number, part in enumerate(value, 1)]
        if len({part.shape for part in parts}) != 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts) or "none"
            raise UserError(f"the systems' features have shapes {shapes}; compare the same noises under one descriptor")
        return torch.stack(parts, dim=1)
    tensor = torch.as_tensor(value)
    if tensor.ndim not in (3, 5):
        raise UserError(
            f"features have shape {tuple(tensor.shape)}; give (n, K, d), uint8 images (n, K, C, H, W), or a list of K"
        )
    return as_features(tensor.flatten(0, 1), "features").unflatten(0, tuple(tensor.shape[:2]))


def reproducibility_matrix_matches(features: Any, threshold: float = 0.6) -> Tensor:
    """Says which systems draw the same image from each noise: bool, shape (n, K, K), symmetric.

    Args:
        features: Of K systems on the same n noises: floating (n, K, d), uint8 images (n, K, C, H, W), or a list of K.
        threshold: Similarity in [-1, 1].

    Raises:
        UserError: as :func:`reproducibility_matches`.
    """
    threshold = check_threshold(threshold)
    stacked = stacked_features(features)
    matches = exceeds(pair_values(stacked.unbind(1), cosine_matrix), threshold).T
    first, second = onto(stacked.device, torch.tensor(pairs_of(stacked.shape[1]))).T
    square = matches.new_empty(len(stacked), stacked.shape[1], stacked.shape[1])
    square[:, first, second] = square[:, second, first] = matches
    return square


def reproducibility_matrix(features: Any, threshold: float = 0.6) -> Tensor:
    """Computes the RP score of every pair of K systems.

    Args:
        features: Of K systems on the same n noises: floating (n, K, d), uint8 images (n, K, C, H, W), or a list of K.
        threshold: tau in [-1, 1]; strict.

    Returns:
        Rates, float64, shape (K, K), symmetric; entry (j, k) is ``reproducibility_score`` of systems j and k.

    Raises:
        UserError: as :func:`reproducibility_score`.

    Example:
        >>> reproducibility_matrix([torch.eye(2), torch.eye(2), torch.eye(2).flip(0)]).tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    matches = reproducibility_matrix_matches(features, threshold)
    return matches.sum(0).double() / len(matches)
