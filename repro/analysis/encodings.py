"""What the noises behind images say of one system, and how alike those of two systems are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.images import to_float
from repro.metrics.functional.encoding import code_statistics, encoding_matches
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.likelihood import BitsPerDimension
from repro.models.denoising import Denoising
from repro.samplers import Sampler

__all__ = ["likeness_of_noises", "summary_of_noises"]

_BATCH = 250


def summary_of_noises(
    model: Denoising,
    images: Tensor,
    noises: Tensor,
    labels: Tensor | None = None,
    sampler: Sampler | None = None,
    bits: bool = False,
) -> dict[str, Any]:
    """Summarises noises that images were walked back to: what is drawn from them again, and how Gaussian they are.

    Args:
        model: The model.
        images: uint8 (n, C, H, W).
        noises: Of these images, floats (n, C, H, W).
        labels: Class numbers, int64 (n,), or None.
        sampler: Draws again in place of the model's own.
        bits: Also bits per dimension of the images, with the standard error of their mean.

    Returns:
        Cells of a table.
    """
    chosen = sampler or model.sampler
    classes = [None] * -(-len(noises) // _BATCH) if labels is None else list(labels.split(_BATCH))
    with torch.no_grad():
        parts = zip(noises.split(_BATCH), classes, strict=True)
        again = torch.cat([chosen.sample(model.denoiser, part, each) for part, each in parts])
    error = (again.float() - to_float(images)).square().flatten(1).mean(1).sqrt()
    statistics = code_statistics(noises)
    row: dict[str, Any] = {
        "n": len(images),
        "reconstruction_rms_median": float(error.median()),
        "reconstruction_rms_max": float(error.max()),
        "mean": float(statistics.mean),
        "variance": float(statistics.variance),
        "normal_dimensions": float(statistics.normal),
        "largest_correlation": float(statistics.correlation),
    }
    if bits:
        metric = BitsPerDimension()
        metric.update(model.denoiser, images, labels)
        row |= {"bits_per_dimension": float(metric.compute()), "bits_standard_error": metric.standard_error()}
    return row


def likeness_of_noises(a: Tensor, b: Tensor, threshold: float = 0.5) -> dict[str, Any]:
    """Counts on how many images two systems find the same noise, with its interval and its chance level.

    Args:
        a: Noises of the first system, floats (n, C, H, W).
        b: Of the second, in the same order.
        threshold: Cosine above which two noises are the same.

    Returns:
        Cells of a table; ``chance`` pairs each image with the next one.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    matches, chance = encoding_matches(a, b, threshold), encoding_matches(a, b.roll(1, 0), threshold)
    low, high = wilson_interval(int(matches.sum()), len(matches))
    return {
        "n": len(a),
        "threshold": threshold,
        "cosine_median": float(cosine.median()),
        "distance_median": float((a - b).square().flatten(1).mean(1).sqrt().median()),
        "rate": float(matches.double().mean()),
        "low": low,
        "high": high,
        "chance": float(chance.double().mean()),
    }
