"""Values of all pairs do not depend on how the noises are cut, and equal those of each pair alone."""

import pytest
import torch

from repro.metrics.functional.mae import absolute_difference_matrix
from repro.metrics.functional.pairs import pair_values, pairs_of
from repro.metrics.functional.similarity import cosine, cosine_matrix


def systems(count=4, n=30, size=12):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, size, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("elements", [1, 500, 1 << 22])
@pytest.mark.parametrize("shuffled", [False, True])
def test_chunks_do_not_matter_and_pairs_are_those_of_the_plain_function(elements, shuffled):
    given = systems()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1)) if shuffled else None
    values = pair_values(given, cosine_matrix, order, elements=elements)
    assert values.shape == (10, 30)
    for (i, j), row in zip(pairs_of(4), values, strict=True):
        other = given[j] if order is None else given[j][order]
        torch.testing.assert_close(row, cosine(given[i], other), rtol=0, atol=1e-7)
    assert torch.equal(values, pair_values(given, cosine_matrix, order))


def test_pixels_are_compared_exactly():
    images = [(item * 40 + 128).clamp(0, 255).to(torch.uint8) for item in systems(3)]
    for (i, j), row in zip(pairs_of(3), pair_values(images, absolute_difference_matrix, elements=100), strict=True):
        assert torch.equal(row, (images[i].double() - images[j].double()).abs().mean(1))
