"""Curves equal the plain scores at every threshold."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repro.metrics import functional

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "sscd_scores" / "io.safetensors")


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_curves_equal_the_scores_at_every_threshold(dtype):
    a, b = (gaussian(80, 8) * 2).to(dtype), (2 * gaussian(80, 8) + gaussian(80, 8, seed=1)).to(dtype)
    places = [-1.0, -0.2, *(step / 100 for step in range(101))]
    expected = [functional.reproducibility_score(a, b, place) for place in places]
    assert functional.reproducibility_curve(a, b, places).tolist() == expected
    assert expected[0] == 1
    assert expected[-1] == 0
    expected = [functional.generalization_score(a, b[:30], place) for place in places]
    assert functional.generalization_curve(a, b[:30], places).tolist() == expected


def test_curves_equal_the_reference_with_ties():
    places = ORACLE["thresholds"]
    found = functional.reproducibility_curve(ORACLE["source"], ORACLE["target"], places)
    assert torch.equal(found, ORACLE["rp_score"])
    found = functional.generalization_curve(ORACLE["source"], ORACLE["training"], places)
    assert torch.equal(found, ORACLE["m_score_printed"])
