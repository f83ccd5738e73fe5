"""GL equals the reference."""

from pathlib import Path

import pytest
import torch
from noisy_images import random_images
from safetensors.torch import load_file

from repro.metrics import functional

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "sscd_scores" / "io.safetensors")


THRESHOLDS = range(len(ORACLE["thresholds"]))


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("place", THRESHOLDS)
def test_generalization_equals_the_reference(place):
    threshold = ORACLE["thresholds"][place].item()
    score = functional.generalization_score(ORACLE["source"], ORACLE["training"], threshold)
    assert score == ORACLE["m_score_printed"][place].item()


def test_one_sample_one_training_image():
    x = gaussian(1, 5)
    assert functional.reproducibility_score(x, x) == 1
    assert functional.reproducibility_score(x, -x) == 0
    assert functional.generalization_score(x, x) == 0
    assert functional.generalization_score(x, -x) == 1
    image = random_images(1, 3, 4, 4)
    assert functional.mae_score(image, image) == 1
    assert functional.mae_score(image, 255 - image) == 0
