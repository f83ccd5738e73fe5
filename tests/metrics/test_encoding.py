"""Likeness and normality of noises."""

from __future__ import annotations

import math

import pytest
import torch

from repro.errors import UserError
from repro.metrics import EncodingReproducibilityScore
from repro.metrics.functional import code_statistics, encoding_reproducibility_score


def test_the_class_counts_what_the_function_counts():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 3, 4, 4, generator=generator)
    b = a + torch.randn(60, 3, 4, 4, generator=generator) * torch.linspace(0, 3, 60).view(-1, 1, 1, 1)
    slow = sum(
        float(x.flatten() @ y.flatten() / (x.norm() * y.norm())) > 0.7
        for x, y in zip(a.double(), b.double(), strict=True)
    )
    metric = EncodingReproducibilityScore(threshold=0.7)
    for part in range(0, 60, 20):
        metric.update(a[part : part + 20], b[part : part + 20], seeds=range(part, part + 20))
    metric.update(a[:5], b[:5], seeds=range(5))  # a padded sampler's copies
    assert metric.counts() == (slow, 60)
    assert encoding_reproducibility_score(a, b, 0.7) == slow / 60
    assert 0 < slow < 60


def test_normals_pass_and_others_do_not():
    generator = torch.Generator().manual_seed(0)
    normal = code_statistics(torch.randn(2000, 64, generator=generator))
    assert abs(normal.mean) < 0.02
    assert abs(normal.variance - 1) < 0.02
    assert 0.85 < normal.normal <= 1
    assert normal.correlation < 2 * math.sqrt(4 * math.log(64) / 2000)
    assert code_statistics(torch.rand(2000, 64, generator=generator)).normal < 0.05
    repeated = torch.randn(2000, 1, generator=generator).expand(2000, 4)
    assert code_statistics(repeated).correlation > 0.999
    with pytest.raises(UserError, match="at least 20"):
        code_statistics(torch.randn(5, 4))
