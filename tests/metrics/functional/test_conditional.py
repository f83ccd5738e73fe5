"""Conditional and between RP against slow loops written from the definitions, and their laws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from repro.errors import UserError
from repro.metrics import functional

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "sscd_scores" / "io.safetensors")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def slow_cosine(x, y):
    x, y = [float(v) for v in x], [float(v) for v in y]
    lengths = math.sqrt(math.fsum(v * v for v in x)) * math.sqrt(math.fsum(v * v for v in y))
    return math.fsum(v * w for v, w in zip(x, y, strict=True)) / lengths if lengths else 0.0


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
def test_conditional_equals_a_slow_loop(dtype):
    a = (gaussian(60, 12) * 3).to(dtype)
    b = (a.float() + 0.8 * gaussian(60, 12, seed=1) * 3).to(dtype)
    labels = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(2))
    for threshold in (-0.3, 0.6, 0.75, 0.9):
        outcomes = [[] for _ in range(3)]
        for x, y, label in zip(a, b, labels.tolist(), strict=True):
            outcomes[label].append(slow_cosine(x, y) > threshold)
        per_class, mean = functional.conditional_reproducibility_score(a, b, labels, 3, threshold)
        assert per_class.tolist() == [sum(each) / len(each) for each in outcomes]
        assert mean == pytest.approx(sum(sum(each) / len(each) for each in outcomes) / 3, rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_between_equals_a_slow_loop(dtype):
    cond = (gaussian(40, 4, 12) * 3).to(dtype)
    strength = torch.linspace(0, 2, 40)[:, None]
    uncond = (cond[torch.arange(40), torch.arange(40) % 4].float() + 3 * strength * gaussian(40, 12, seed=1)).to(dtype)
    similarity = [[slow_cosine(x, y) for y in each] for x, each in zip(uncond, cond, strict=True)]
    for threshold in (-0.3, 0.2, 0.6, 0.9):
        expected = sum(max(row) > threshold for row in similarity) / 40
        assert functional.between_reproducibility_score(uncond, cond, threshold) == expected
    _, found, place = functional.between_matches(uncond, cond)
    assert place.tolist() == [row.index(max(row)) for row in similarity]
    np.testing.assert_allclose(found, [max(row) for row in similarity], rtol=1e-6)


@pytest.mark.parametrize("place", range(len(ORACLE["thresholds"])))
def test_one_class_equals_the_reference_with_ties(place):
    threshold, source, target = ORACLE["thresholds"][place].item(), ORACLE["source"], ORACLE["target"]
    expected = ORACLE["rp_score"][place].item()
    labels = torch.zeros(len(source), dtype=torch.int64)
    assert functional.conditional_reproducibility_score(source, target, labels, 1, threshold).mean == expected
    assert functional.between_reproducibility_score(source, target[:, None], threshold) == expected
    both = torch.stack([-target, target], dim=1)
    loosest = functional.between_reproducibility_score(source, both, threshold)
    assert loosest >= expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("y", "threshold"), [((3.0, 4.0), 0.6), ((1.0, 0.0), 1.0), ((0.0, 1.0), 0.0)])
def test_a_pair_on_the_threshold_does_not_count(dtype, y, threshold):
    x, y = torch.tensor([[7.0, 0.0]], dtype=dtype), torch.tensor([y], dtype=dtype)
    just_below = np.nextafter(np.float32(threshold), np.float32(-2)).item()
    for limit, expected in ((threshold, 0), (just_below, 1)):
        assert functional.conditional_reproducibility_score(x, y, [0], 1, limit).mean == expected
        assert functional.between_reproducibility_score(x, torch.stack([-x, y], 1), limit) == expected


def test_one_sample_identical_sets_and_a_class_without_samples():
    x = gaussian(1, 5)
    per_class, mean = functional.conditional_reproducibility_score(x, x, [2], 4)
    assert mean == 1
    assert per_class.isnan().tolist() == [True, True, False, True]
    assert functional.between_reproducibility_score(x, x[:, None].repeat(1, 3, 1)) == 1
    assert functional.between_reproducibility_score(x, -x[:, None]) == 0


def test_the_mean_is_unweighted():
    a, b = torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]
    assert functional.conditional_reproducibility_score(a, b, [0, 0, 1, 0], 2).per_class.tolist() == [2 / 3, 0]
    assert functional.conditional_reproducibility_score(a, b, [0, 0, 1, 0], 2).mean == pytest.approx(1 / 3)
    assert functional.reproducibility_score(a, b) == 0.5


def test_images_go_through_pixels():
    images = torch.randint(0, 256, (20, 3, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert functional.between_reproducibility_score(images[:, 2], images, 0.8) == 1
    assert functional.between_reproducibility_score(255 - images[:, 2], images[:, 2:], 0.8) == 0
    labels = torch.arange(20) % 2
    score = functional.conditional_reproducibility_score(images[:, 0], images[:, 0].numpy(), labels, 2, 0.8)
    assert score.per_class.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0, 1], 2), "4 samples"),
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0.0, 1, 0, 1], 2), "float"),
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0, 1, 2, 0], 2), "label 2 is outside the 2 classes"),
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0, -1, 0, 0], 2), "label -1"),
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0, 0, 0, 0], 0), "num_classes is 0"),
        (lambda f, x: f.conditional_reproducibility_score(x, x, [0, 0, 0, 0], 1, 1.2), "[-1, 1]"),
        (lambda f, x: f.conditional_reproducibility_score(x, x[:3], [0, 0, 0, 0], 1), "(3, 3)"),
        (lambda f, x: f.between_reproducibility_score(x, x), "under every class, (n, classes, d)"),
        (lambda f, x: f.between_reproducibility_score(x, x[:, None, :2]), "one descriptor"),
        (lambda f, x: f.between_reproducibility_score(x[:2], x[:, None]), "the same noises"),
        (lambda f, x: f.between_reproducibility_score(x, x[:, None], -3), "[-1, 1]"),
        (lambda f, x: f.between_reproducibility_score(x, x[:, None] / 0), "not finite"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call(functional, gaussian(4, 3))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
