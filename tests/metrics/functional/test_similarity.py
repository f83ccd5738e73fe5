"""Similarities and nearest training images equal slow loops and the reference, ties included."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from noisy_images import random_images
from safetensors.torch import load_file

from repro.metrics import functional
from repro.metrics.functional import similarity as engine
from repro.metrics.functional.mae import absolute_difference_matrix
from repro.metrics.functional.similarity import cosine, cosine_matrix

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "sscd_scores" / "io.safetensors")


def slow_cosine(x, y):
    x, y = [float(v) for v in x], [float(v) for v in y]
    lengths = math.sqrt(math.fsum(v * v for v in x)) * math.sqrt(math.fsum(v * v for v in y))
    return math.fsum(v * w for v, w in zip(x, y, strict=True)) / lengths if lengths else 0.0


def slow_nearest(samples, train):
    table = [[slow_cosine(x, y) for y in train] for x in samples]
    return [max(row) for row in table], [row.index(max(row)) for row in table]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_similarity_equals_the_reference():
    found, _ = functional.nearest(ORACLE["source"], ORACLE["training"])
    torch.testing.assert_close(found.double(), ORACLE["m_max_similarity"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_counts_equal_a_slow_loop_in_every_dtype(dtype):
    a = (gaussian(60, 12) * 3).to(dtype)
    b = (a.float() + 0.8 * gaussian(60, 12, seed=1) * 3).to(dtype)
    for threshold in (-0.3, 0.0, 0.6, 0.75, 0.9):
        expected = sum(slow_cosine(x, y) > threshold for x, y in zip(a, b, strict=True))
        assert functional.reproducibility_score(a, b, threshold) == expected / 60
        similarity, index = slow_nearest(a, b[:23])
        expected = sum(not value > threshold for value in similarity)
        assert functional.generalization_score(a, b[:23], threshold) == expected / 60
        assert functional.nearest(a, b[:23])[1].tolist() == index


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("y", "threshold"), [((3.0, 4.0), 0.6), ((4.0, 3.0), 0.8), ((1.0, 0.0), 1.0), ((0.0, 1.0), 0.0)]
)
def test_a_pair_on_the_threshold_does_not_count(dtype, y, threshold):
    x, y = torch.tensor([[7.0, 0.0]], dtype=dtype), torch.tensor([y], dtype=dtype)
    just_below = np.nextafter(np.float32(threshold), np.float32(-2)).item()
    assert functional.reproducibility_score(x, y, threshold) == 0
    assert functional.reproducibility_score(x, y, just_below) == 1
    assert functional.generalization_score(x, y, threshold) == 1
    assert functional.generalization_score(x, y, just_below) == 0


def test_length_of_features_does_not_matter():
    a, b = gaussian(200, 9), gaussian(200, 9) + gaussian(200, 9, seed=2)
    scale = torch.logspace(-25, 25, 200, dtype=torch.float64)[:, None]
    for factor in (1e-3, 1e4):
        assert functional.reproducibility_score(a, b * factor) == functional.reproducibility_score(a, b)
        assert functional.generalization_score(a, b[:50] * factor) == functional.generalization_score(a, b[:50])
    found, index = functional.nearest((a * scale).float(), b[:50] * 1e-30)
    assert torch.equal(index, functional.nearest(a, b[:50])[1])
    torch.testing.assert_close(found, functional.nearest(a, b[:50])[0], rtol=1e-6, atol=1e-6)


def test_a_zero_vector_is_like_nothing():
    zero, other = torch.zeros(2, 4), torch.eye(4)[:2]
    assert functional.reproducibility_score(zero, zero) == 0
    assert functional.reproducibility_score(zero, other, threshold=-0.5) == 1
    assert functional.nearest(zero, other)[0].tolist() == [0, 0]


@pytest.mark.parametrize("size", [7, 64])
def test_nearest_is_exact_whatever_the_chunks(monkeypatch, size):
    train = gaussian(700, size)
    train[300:600] = train[:300]  # equally near: the first place is the answer
    train[600:650] = train[:50] * (1 + 1e-7)
    samples = torch.cat([train[:320] + 1e-6 * gaussian(320, size, seed=3), gaussian(100, size, seed=4)])
    table = (samples.double() / samples.double().norm(dim=1, keepdim=True)) @ (
        train.double() / train.double().norm(dim=1, keepdim=True)
    ).T
    top = table.amax(1)
    first = [int((row >= value - 1e-12).nonzero()[0]) for row, value in zip(table, top, strict=True)]
    for at_once, block in ((4096, 256), (64, 16), (16, 16), (33 * 8, 8)):
        monkeypatch.setattr(engine, "SAMPLES_AT_ONCE", at_once // 2)
        monkeypatch.setattr(engine, "TRAIN_AT_ONCE", at_once)
        monkeypatch.setattr(engine, "BLOCK", block)
        similarity, index = functional.nearest(samples, train)
        assert index.tolist() == first
        assert torch.equal(similarity, top.float())


def test_nearest_is_exact_in_a_lowered_matrix_precision(monkeypatch):
    """The product is replaced by one with 8-bit mantissas, as a processor may do when asked for speed."""
    samples, train = gaussian(300, 32), gaussian(900, 32, seed=1)
    samples[:200] = train[:200] + 0.02 * gaussian(200, 32, seed=2)
    train[500:700] = train[:200] + 0.002 * gaussian(200, 32, seed=3)
    exact = functional.nearest(samples, train)
    product = torch.mm

    def coarse(x, y, out):
        return product(x.bfloat16().float(), y.bfloat16().float(), out=out)

    monkeypatch.setattr(torch, "mm", coarse)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    rough = functional.nearest(samples, train)
    assert torch.equal(rough[0], exact[0])
    assert torch.equal(rough[1], exact[1])


def test_nearest_under_autocast():
    samples, train = gaussian(50, 16), gaussian(400, 16, seed=1)
    expected = functional.nearest(samples, train)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = functional.nearest(samples, train)
        score = functional.reproducibility_score(samples, train[:50], 0.1)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert score == functional.reproducibility_score(samples, train[:50], 0.1)


def test_matrices_equal_the_pairwise_functions():
    a, b = gaussian(30, 3, 8), gaussian(30, 3, 8, seed=1)
    matrix = cosine_matrix(a, b)
    for j in range(3):
        for k in range(3):
            torch.testing.assert_close(matrix[:, j, k], cosine(a[:, j], b[:, k]), rtol=0, atol=1e-7)
    x, y = random_images(30, 3, 48), random_images(30, 3, 48, seed=1)
    matrix = absolute_difference_matrix(x, y)
    for j in range(3):
        for k in range(3):
            assert torch.equal(matrix[:, j, k], (x[:, j].double() - y[:, k].double()).abs().mean(1))


def test_images_go_through_centred_pixels():
    a = random_images(50, 1, 4, 4)
    b = (a.int() + (gaussian(50, 1, 4, 4) * 50).int()).clamp(0, 255).to(torch.uint8)
    pixels = [x.double().flatten(1) - x.double().flatten(1).mean(1, keepdim=True) for x in (a, b)]
    expected = sum(slow_cosine(x, y) > 0.8 for x, y in zip(*pixels, strict=True)) / 50
    assert 0.2 < expected < 0.9
    assert functional.reproducibility_score(a, b, 0.8) == expected
    assert functional.reproducibility_score(a.numpy(), b.numpy(), 0.8) == expected
