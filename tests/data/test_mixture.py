"""The mixture of low-rank Gaussians: its samples have the moments of its formula, in floats, and are trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.data.mixture import LowRankMixture
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.noise import mixture_bases


def test_moments_of_each_component_are_those_of_the_formula():
    data = LowRankMixture(rank=3, components=3, samples=60_000, bases_seed=4)
    points, labels = data.images().flatten(1).double(), data.labels()
    bases = mixture_bases((3, 4, 4), 3, 3, 4)
    for k, basis in enumerate(bases):
        own = points[labels == k]
        assert abs(len(own) / 60_000 - 1 / 3) < 0.01
        assert own.mean(0).abs().max() < 0.03
        torch.testing.assert_close(own.T @ own / len(own), basis @ basis.T, rtol=0, atol=0.03)
        assert (own - own @ basis @ basis.T).abs().max() < 1e-6


def test_bases_are_orthonormal_and_numbered():
    bases = mixture_bases((1, 5, 5), 4, 6, seed=1)
    identity = torch.eye(6, dtype=torch.float64).expand(4, 6, 6)
    torch.testing.assert_close(bases.mT @ bases, identity, rtol=0, atol=1e-12)
    assert torch.equal(bases, mixture_bases((1, 5, 5), 4, 6, seed=1))
    assert (bases - mixture_bases((1, 5, 5), 4, 6, seed=2)).abs().max() > 0.1
    assert (bases[0] - bases[1]).abs().max() > 0.1


def test_a_sample_is_the_same_bits_in_any_batch():
    source = LowRankMixture(samples=300).open_source()
    together = source.read(np.arange(300))
    for rows in ([7], [299, 0, 7], list(range(40, 77))):
        assert torch.equal(source.read(np.array(rows)), together[rows])


def test_floats_are_shown_to_the_model_as_they_are():
    images = LowRankMixture(samples=500).images()
    assert images.dtype == torch.float32
    assert images.abs().max() > 1
    assert to_float(images) is images
    pictures = to_uint8(images)
    assert to_uint8(pictures) is pictures
    inside = images.abs() <= 1
    assert (to_float(pictures)[inside] - images[inside]).abs().max() < 0.5 / 127.5 + 1e-6


def test_memory_is_counted_in_bytes_of_floats(monkeypatch):
    import repro.data.base

    monkeypatch.setattr(repro.data.base, "IN_MEMORY_BYTES", 48 * 100 * 4)
    fits, does_not = LowRankMixture(samples=1000, subset=100), LowRankMixture(samples=1000, subset=101)
    for data in (fits, does_not):
        data.setup()
    assert fits._memory is not None
    assert does_not._memory is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 49}, "rank is 49; images of 48 values take a rank from 1 to 48"),
        ({"rank": 0}, "rank is 0"),
        ({"components": 0}, "components is 0; give at least 1"),
        ({"samples": 0}, "samples is 0; give at least 1"),
        ({"resize": 8}, r"takes no resize 8; give image_shape \[C, H, W\]"),
        ({"grayscale": True}, "takes no grayscale"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        LowRankMixture(**arguments)
