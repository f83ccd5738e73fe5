"""RP equals the reference, ties included; mistakes are one line."""

import itertools
from pathlib import Path

import pytest
import torch
from noisy_images import random_images
from safetensors.torch import load_file

from repro.errors import UserError
from repro.metrics import functional

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "sscd_scores" / "io.safetensors")


THRESHOLDS = range(len(ORACLE["thresholds"]))


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("place", THRESHOLDS)
def test_reproducibility_equals_the_reference_with_ties(place):
    threshold = ORACLE["thresholds"][place].item()
    score = functional.reproducibility_score(ORACLE["source"], ORACLE["target"], threshold)
    assert score == ORACLE["rp_score"][place].item()


def test_laws_of_the_scores():
    a, b = gaussian(500, 64), gaussian(500, 64, seed=1)
    assert functional.reproducibility_score(a, a) == 1
    assert functional.reproducibility_score(a, a + 0.9 * b) == functional.reproducibility_score(a + 0.9 * b, a)
    assert functional.reproducibility_score(a, b) == 0
    assert functional.generalization_score(a[:100], a) == 0
    assert functional.generalization_score(a, b) == 1


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda f: f.reproducibility_score(gaussian(4, 3), gaussian(5, 3)), "(5, 3)"),
        (lambda f: f.reproducibility_score(gaussian(4, 3), gaussian(4, 2)), "(4, 2)"),
        (lambda f: f.reproducibility_score(gaussian(0, 3), gaussian(0, 3)), "at least one row"),
        (lambda f: f.reproducibility_score(gaussian(4, 3), gaussian(4, 3), 1.01), "[-1, 1]"),
        (lambda f: f.reproducibility_score(gaussian(4, 3), gaussian(4, 3), float("nan")), "[-1, 1]"),
        (lambda f: f.reproducibility_score(gaussian(4), gaussian(4)), "(n, d)"),
        (lambda f: f.reproducibility_score(gaussian(4, 3).int(), gaussian(4, 3)), "int32"),
        (lambda f: f.reproducibility_score(gaussian(4, 3), gaussian(4, 3) / 0), "row 0"),
        (lambda f: f.generalization_score(gaussian(4, 3), gaussian(4, 2)), "one descriptor"),
        (lambda f: f.generalization_score(gaussian(4, 3), gaussian(0, 3)), "train_features"),
        (lambda f: f.generalization_score(gaussian(4, 3), gaussian(4, 3), -1.5), "-1.5"),
        (lambda f: f.mae_score(random_images(2, 1, 4, 4), random_images(3, 1, 4, 4)), "(3, 1, 4, 4)"),
        (lambda f: f.mae_score(random_images(2, 1, 4, 4), random_images(2, 1, 4, 5)), "(2, 1, 4, 5)"),
        (lambda f: f.mae_score(random_images(0, 1, 4, 4), random_images(0, 1, 4, 4)), "n >= 1"),
        (lambda f: f.mae_score(gaussian(2, 1, 4, 4), gaussian(2, 1, 4, 4)), "to_uint8"),
        (lambda f: f.mae_score(random_images(2, 1, 4, 4), random_images(2, 1, 4, 4), 256), "[0, 255]"),
        (lambda f: f.mae_score(random_images(2, 1, 4, 4), random_images(2, 1, 4, 4), -1), "[0, 255]"),
    ],
)
def test_bad_input_is_one_line(call, word):
    with pytest.raises(UserError) as caught:
        call(functional)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_matrix_equals_its_pairs():
    systems = [ORACLE["source"], ORACLE["target"], ORACLE["target"].roll(1, 0)]
    for threshold in ORACLE["thresholds"].tolist():
        found = functional.reproducibility_matrix(systems, threshold)
        for j, k in itertools.product(range(3), repeat=2):
            assert found[j, k] == functional.reproducibility_score(systems[j], systems[k], threshold)
        assert torch.equal(functional.reproducibility_matrix(torch.stack(systems, 1), threshold), found)
