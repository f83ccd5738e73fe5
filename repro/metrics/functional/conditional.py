"""Scores of models that draw each noise under several classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.reproducibility import reproducibility_matches
from repro.metrics.functional.similarity import as_features, check_threshold, exceeds, paired_cosine

__all__ = [
    "ConditionalRates",
    "between_matches",
    "between_reproducibility_score",
    "check_labels",
    "conditional_counts",
    "conditional_reproducibility_score",
]


class ConditionalRates(NamedTuple):
    """A rate under each class, and their mean.

    Attributes:
        per_class: float64, shape (num_classes,); NaN for a class without a sample.
        mean: Unweighted, over the classes with samples.
    """

    per_class: Tensor
    mean: float


def check_labels(labels: Any, count: int, num_classes: int) -> Tensor:
    """Returns classes as int64, shape (count,).

    Raises:
        UserError: another number of labels, labels that are no integers, or a class outside 0 .. num_classes - 1.
    """
    classes = torch.as_tensor(labels)
    if int(num_classes) < 1:
        raise UserError(f"num_classes is {num_classes}; give the number of classes, at least 1")
    if classes.ndim != 1 or len(classes) != count or classes.is_floating_point() or classes.dtype == torch.bool:
        raise UserError(
            f"labels are {classes.dtype} of shape {tuple(classes.shape)} for {count} samples; give each one an integer"
        )
    outside = (classes < 0) | (classes >= num_classes)
    if bool(outside.any()):
        raise UserError(f"label {int(classes[outside][0])} is outside the {num_classes} classes 0 .. {num_classes - 1}")
    return classes.to(torch.int64)


def conditional_counts(matches: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Matches and samples of each class, int64 (num_classes,) both.

    Args:
        matches: bool (n,).
        labels: Class of each, int64 (n,).
        num_classes: Number of classes.
    """
    labels = labels.to(matches.device)
    return torch.bincount(labels[matches], minlength=num_classes), torch.bincount(labels, minlength=num_classes)


def conditional_reproducibility_score(
    a: Any, b: Any, labels: Any, num_classes: int, threshold: float = 0.6
) -> ConditionalRates:
    r"""Computes conditional RP: the share of noises from which two models draw the same image, given the class.

    .. math:: \mathrm{RP}_c = P\big(M(x_1, x_2) > \tau \,\big|\, c\big)

    Args:
        a: Of the first model: floating (n, d) features or uint8 (n, C, H, W) images, one row a noise and class.
        b: Of the second model, of the same noises and classes in the same order.
        labels: Class of each row, integers (n,).
        num_classes: Number of classes.
        threshold: tau in [-1, 1]; strict. The paper takes 0.6 for SSCD.

    Returns:
        Rate of each class and their mean. With one class it is the RP score.

    Raises:
        UserError: as :func:`~repro.metrics.functional.reproducibility_score`, labels of another length, or a class
            outside ``num_classes``.

    Source: Zhang et al. 2024 (arXiv:2310.05264), section 4.1.

    Example:
        >>> a, b = torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]
        >>> rates = conditional_reproducibility_score(a, b, [0, 1, 0, 1], num_classes=2)
        >>> rates.per_class.tolist(), rates.mean
        ([0.5, 0.5], 0.5)
    """
    matches = reproducibility_matches(a, b, threshold)
    hits, total = conditional_counts(matches, check_labels(labels, len(matches), num_classes), num_classes)
    return conditional_rates(hits, total)


def conditional_rates(hits: Tensor, total: Tensor) -> ConditionalRates:
    """Rates of counts; a class without a sample has none and does not enter the mean."""
    rates = hits.double() / total
    return ConditionalRates(rates, float(rates[total > 0].mean()))


@torch.no_grad()
def between_matches(uncond: Any, cond: Any, threshold: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Says which noises give an unconditional model the image that some class gives a conditional one.

    Args:
        uncond: Of the unconditional model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        cond: Of the conditional model, entry (i, c) from noise i under class c: floating (n, classes, d) features or
            uint8 (n, classes, C, H, W) images.
        threshold: Similarity in [-1, 1].

    Returns:
        Matches, bool (n,); similarity to the most similar class's image, (n,); that class, the first of equals, int64
        (n,).

    Raises:
        UserError: a ``cond`` without classes, other noises or sizes, values that are not finite, or a threshold
            outside [-1, 1].
    """
    threshold = check_threshold(threshold)
    first, labelled = as_features(uncond, "uncond"), torch.as_tensor(cond)
    if labelled.ndim not in (3, 5):
        raise UserError(
            f"cond has shape {tuple(labelled.shape)}; give the features of each noise under every class, "
            "(n, classes, d)"
        )
    second = as_features(labelled.flatten(0, 1), "cond").unflatten(0, tuple(labelled.shape[:2]))
    if (len(first), first.shape[1]) != (len(second), second.shape[2]):
        raise UserError(
            f"uncond has shape {tuple(first.shape)}, cond {tuple(second.shape)}; "
            "compare the same noises under one descriptor: (n, d) and (n, classes, d)"
        )
    similarity, best = paired_cosine(first, second).max(1)
    return exceeds(similarity, threshold), similarity, best


def between_reproducibility_score(uncond: Any, cond: Any, threshold: float = 0.6) -> float:
    r"""Between RP: how often an unconditional model draws what a conditional one draws from the same noise for a class.

    .. math:: P\Big(\max_{c} M\big(x_{\mathrm{uncond}}, x_c\big) > \tau\Big)

    Args:
        uncond: Of the unconditional model, row i from noise i: floating (n, d) features or uint8 (n, C, H, W) images.
        cond: Of the conditional model, entry (i, c) from noise i under class c: floating (n, classes, d) features or
            uint8 (n, classes, C, H, W) images.
        threshold: tau in [-1, 1]; strict. The paper takes 0.6 for SSCD.

    Returns:
        Rate in [0, 1].

    Raises:
        UserError: as :func:`between_matches`.

    Source: Zhang et al. 2024 (arXiv:2310.05264), section 4.1.

    Example:
        >>> uncond, cond = torch.eye(3), torch.eye(3)[torch.tensor([[0, 1], [2, 1], [0, 1]])]
        >>> between_reproducibility_score(uncond, cond)
        0.6666666666666666
    """
    matches, _, _ = between_matches(uncond, cond, threshold)
    return int(matches.sum()) / len(matches)
