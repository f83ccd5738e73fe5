"""Likelihood as a metric: the function's mean over any batches, its interval, and no score of a pair."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from noisy_images import random_images

from repro.denoisers import FittedGaussianDenoiser
from repro.errors import UserError
from repro.kernels import EDM
from repro.metrics import BitsPerDimension
from repro.metrics.functional import bits_per_dimension
from repro.metrics.protocol import pair_metrics

matplotlib.use("Agg")


def test_the_class_is_the_mean_of_the_function_over_any_batches():
    images = random_images(10, 1, 3, 3)
    denoiser = FittedGaussianDenoiser(images.double() / 127.5 - 1, EDM())
    bits = bits_per_dimension(denoiser, images, steps=16).bits
    metric = BitsPerDimension(steps=16)
    for part in range(0, 10, 4):
        metric.update(denoiser, images[part : part + 4], seeds=range(part, min(part + 4, 10)))
    metric.update(denoiser, images[:3], seeds=range(3))  # a padded sampler's copies
    torch.testing.assert_close(metric.compute(), bits.mean(), rtol=1e-12, atol=0)
    assert metric.count == 10
    width = 1.96 * float(bits.std()) / 10**0.5
    assert metric.interval() == pytest.approx((float(bits.mean()) - width, float(bits.mean()) + width), rel=1e-4)
    unnumbered = BitsPerDimension(steps=16)
    for part in images.split(4):
        unnumbered.update(denoiser, part)
    assert torch.equal(unnumbered.compute(), metric.compute())
    metric.plot()
    metric.reset()
    with pytest.raises(UserError, match="has seen no image"):
        metric.compute()


def test_it_is_no_score_of_a_pair():
    with pytest.raises(UserError, match="is of one model, not of two; type repro test --metric BitsPerDimension"):
        pair_metrics(["BitsPerDimension"], "Pixels")
