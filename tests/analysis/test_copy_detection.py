"""Evaluation of descriptors: precision, recall and false positives against counts by hand; what edits do."""

from __future__ import annotations

import math

import pytest
import torch
from noisy_images import random_images
from torch import Tensor

from repro.analysis.copy_detection import EDITS, detect_copies, edited_copies, micro_average_precision
from repro.data.digits import Digits
from repro.descriptors.base import Descriptor
from repro.descriptors.pixels import Pixels
from repro.errors import UserError


def slow_precision(similarity: Tensor) -> float:
    """Mean, over the right pairs, of the share of right ones among all pairs at least as similar."""
    pairs = [(float(similarity[i, j]), i == j) for i in range(len(similarity)) for j in range(similarity.shape[1])]
    shares = []
    for score, right in pairs:
        if right:
            above = [other for value, other in pairs if value >= score]
            shares.append(sum(above) / len(above))
    return sum(shares) / len(shares)


def test_precision_equals_counting_by_hand():
    similarity = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    similarity.diagonal().add_(1.0)
    assert micro_average_precision(similarity) == pytest.approx(slow_precision(similarity), rel=1e-12)
    both = torch.block_diag(similarity, similarity)
    assert micro_average_precision(torch.eye(5, 9)) == 1.0
    assert both.shape == (14, 24)


@pytest.mark.parametrize("edit", list(EDITS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_edits_are_numbered_and_close_to_their_image(edit, shape):
    ramp = torch.linspace(40, 215, shape[-1]).view(1, 1, 1, -1).expand(20, *shape).round().to(torch.uint8)
    copies = edited_copies(ramp, edit)
    assert (copies.shape, copies.dtype) == (ramp.shape, torch.uint8)
    assert torch.equal(copies, edited_copies(ramp, edit))
    assert torch.equal(copies[:3], edited_copies(ramp[:3], edit))
    assert not torch.equal(copies, ramp)
    assert float((copies.float() - ramp.float()).abs().mean()) < 45
    random = edit in ("crop", "colour", "noise", "rotation") and not (edit == "colour" and shape[0] == 1)
    assert (len(copies.flatten(1).unique(dim=0)) > 3) == random or edit == "colour"


class Angles(Descriptor):
    """The first two pixels as an angle: similarities are known, and no two are equal."""

    def describe(self, images, device):
        angle = angle_of(images)
        return torch.stack([angle.cos(), angle.sin()], 1)


def angle_of(images):
    first, second = images.flatten(1)[:, :2].double().unbind(1)
    return (first * 256 + second) * math.pi / 65536


def test_counts_equal_counting_by_hand(monkeypatch):
    images = random_images(30, 1, 4, 4)
    monkeypatch.setitem(EDITS, "shift", lambda image, draw: image.point([draw.randrange(256), *range(1, 256)]))
    images[:10, 0, 0, 1] = 0
    found = detect_copies(Angles(), images, 10, ["shift"], threshold=0.95)
    angle = angle_of(images)
    unrelated = [float((angle[i] - angle[j]).cos()) for i in range(30) for j in range(i)]
    copies = angle_of(edited_copies(images[:10], "shift"))
    own = (copies - angle[:10]).cos()
    assert (found.pairs, found.references, found.queries) == (435, 30, 10)
    assert found.false_positives == sum(value > 0.95 for value in unrelated)
    assert found.hits == [int((own > 0.95).sum())]
    assert found.strict_threshold == pytest.approx(max(unrelated), abs=1e-6)
    assert found.strict_hits == [int((own > max(unrelated)).sum())]
    similarity = (copies[:, None] - angle[None]).cos().float()
    assert found.precision[0] == pytest.approx(slow_precision(similarity), rel=1e-4)
    row = found.rows()[-1]
    assert row["false_positive_rate"] == found.false_positives / 435
    assert row["recall_low"] <= row["recall"] <= row["recall_high"]


def test_the_strict_threshold_leaves_its_share_of_pairs():
    images = Digits(subset=150).images()
    found = detect_copies(Pixels(), images, 5, ["blur"])
    features = Pixels().features(images)
    similarity = (features @ features.T)[*torch.triu_indices(150, 150, 1)]
    assert int((similarity > found.strict_threshold).sum()) == int(1e-3 * 150 * 149 / 2)


def test_exact_copies_are_all_found_by_pixels(monkeypatch):
    monkeypatch.setitem(EDITS, "nothing", lambda image, draw: image)
    found = detect_copies(Pixels(), random_images(40, 3, 8, 8), 40, ["nothing"])
    assert found.precision == [1.0, 1.0]
    assert (found.hits, found.false_positives) == ([40], 0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: edited_copies(random_images(1, 1, 8, 8), "blurr"), "did you mean 'blur'"),
        (lambda: detect_copies(Pixels(), random_images(3, 1, 8, 8), 4), "4 queries in 3 images"),
    ],
)
def test_mistakes_are_one_line(call, word):
    with pytest.raises(UserError, match=word):
        call()
