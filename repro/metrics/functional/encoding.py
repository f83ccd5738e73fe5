"""How alike the noises are that two models give one image, and how Gaussian the noises of a model are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.similarity import check_threshold, cosine, exceeds, same_shape

__all__ = ["CodeStatistics", "code_statistics", "encoding_matches", "encoding_reproducibility_score"]


def encoding_matches(a: Any, b: Any, threshold: float = 0.5) -> Tensor:
    """Says which images get the same noise from two models: cosine of the noises > threshold, strictly; bool (n,).

    Args:
        a: Noises of the first model, floats (n, C, H, W) or (n, d), row i of image i.
        b: Of the second model, in the same order.
        threshold: Cosine in [-1, 1]. Independent noises of d values have a cosine of about 1 / sqrt(d).

    Raises:
        UserError: different sizes, no row, values that are not finite, or a threshold outside [-1, 1].
    """
    first, second = (torch.as_tensor(noise).flatten(1) for noise in (a, b))
    return exceeds(cosine(*same_shape(first, second)), check_threshold(threshold))


def encoding_reproducibility_score(a: Any, b: Any, threshold: float = 0.5) -> float:
    """Computes the share of images to which two models give the same noise, in [0, 1]; higher is more alike.

    Args:
        a: Noises of the first model, floats (n, C, H, W) or (n, d), row i of image i.
        b: Of the second model, in the same order.
        threshold: Cosine in [-1, 1]; strict.

    Raises:
        UserError: as :func:`encoding_matches`.

    Example:
        >>> encoding_reproducibility_score(torch.eye(2), torch.tensor([[1.0, 0.1], [1.0, 0.1]]))
        0.5
    """
    matches = encoding_matches(a, b, threshold)
    return int(matches.sum()) / len(matches)


@dataclass(frozen=True)
class CodeStatistics:
    """How far the noises of a model are from independent unit normals.

    Attributes:
        mean: Of all values; 0 for unit normals.
        variance: Of all values; 1 for unit normals.
        normal: Share of dimensions in which D'Agostino and Pearson's test does not refuse normality at 5 per cent;
            about 0.95 for normals.
        correlation: Largest absolute correlation between two dimensions; for n independent normals about
            sqrt(4 log d / n).
    """

    mean: float
    variance: float
    normal: float
    correlation: float


def code_statistics(noises: Any) -> CodeStatistics:
    """Computes statistics of noises, floats (n, C, H, W) or (n, d), over n of at least 20.

    Raises:
        UserError: fewer than 20 noises, or values that are not finite.

    Example:
        >>> statistics = code_statistics(torch.randn(500, 16, generator=torch.Generator().manual_seed(0)))
        >>> abs(statistics.mean) < 0.05, abs(statistics.variance - 1) < 0.1
        (True, True)
    """
    from scipy.stats import normaltest

    values = torch.as_tensor(noises).double().flatten(1)
    if len(values) < 20:
        raise UserError(f"{len(values)} noises; tests of normality need at least 20")
    if not bool(values.isfinite().all()):
        raise UserError("noises hold values that are not finite")
    pvalues = torch.as_tensor(normaltest(values.numpy(), axis=0).pvalue)
    correlations = (
        torch.corrcoef(values.T).nan_to_num(0.0).fill_diagonal_(0.0).abs() if values.shape[1] > 1 else values[:1]
    )
    return CodeStatistics(
        float(values.mean()), float(values.var()), float((pvalues > 0.05).double().mean()), float(correlations.max())
    )
