"""Which samples are copies: equal to a loop over all pairs in float64, whatever the bounds, the chunks and the data."""

import numpy as np
import pytest
import torch

from repro.errors import UserError
from repro.metrics import functional
from repro.metrics.functional import copies


def gaussian(rows, size, seed=0):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def table(samples, train):
    x, y = (each.double() / each.double().norm(dim=1, keepdim=True) for each in (samples, train))
    return x @ y.T


def random(size):
    return gaussian(300, size), gaussian(900, size, seed=1)


def clustered(size):
    centres = 1.5 * gaussian(12, size, seed=2)
    return [
        gaussian(rows, size, seed) + centres[torch.randint(12, (rows,), generator=torch.Generator().manual_seed(seed))]
        for rows, seed in ((300, 3), (900, 4))
    ]


def duplicated(size):
    samples, train = random(size)
    train[::3] = train[0]
    samples[::4] = train[0] * 1.7
    samples[1::4] = train[: len(samples[1::4])] + 0.5 * samples[1::4]
    return samples, train


def decaying(size):
    """Energy in few directions, as descriptors of images have it."""
    scale = torch.logspace(0, -2, size)
    return [each * scale for each in clustered(size)]


def one_sided(size):
    """Every pair is near the threshold."""
    return [each + 1.2 for each in random(size)]


@pytest.mark.parametrize("size", [24, 64])
@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [random, clustered, duplicated, decaying, one_sided])
def test_copies_equal_a_loop_over_all_pairs(kind, threshold, size):
    samples, train = kind(size)
    expected = (table(samples, train).float() > np.float32(threshold)).any(1)
    assert torch.equal(functional.have_copies(samples, train, threshold), expected)
    assert functional.generalization_score(samples, train, threshold) == float((~expected).double().mean())


def test_fewer_coordinates_are_multiplied_where_that_pays(monkeypatch):
    """The products are counted: with energy in few directions most coordinates are left out."""
    widths, product = [], torch.mm

    def counted(x, y, out):
        widths.append(x.shape[1])
        return product(x, y, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    scale = torch.logspace(0, -2, 64)
    functional.have_copies(gaussian(300, 64) * scale, gaussian(900, 64, seed=1) * scale, 0.9)
    assert max(widths) <= 32
    functional.have_copies(*one_sided(64), 0.6)
    assert widths[-1] == 64


@pytest.mark.parametrize(("rows", "at_once"), [(50, 64), (17, 900), (300, 7)])
def test_chunks_do_not_matter(monkeypatch, rows, at_once):
    for kind in (duplicated, decaying):
        samples, train = kind(32)
        expected = functional.have_copies(samples, train, 0.7)
        assert 0 < int(expected.sum()) < len(samples)
        with monkeypatch.context() as patch:
            patch.setattr(copies, "ROWS_AT_ONCE", 2 * rows)
            patch.setattr(copies, "ROWS_A_PRODUCT", rows)
            patch.setattr(copies, "TRAIN_AT_ONCE", at_once)
            assert torch.equal(functional.have_copies(samples, train, 0.7), expected)


@pytest.mark.parametrize("kind", [clustered, duplicated, decaying])
def test_copies_in_a_lowered_matrix_precision(monkeypatch, kind):
    """Products are replaced by ones with 8-bit mantissas, as a processor may do when asked for speed."""
    samples, train = kind(32)
    similarity = table(samples, train).amax(1)
    product = torch.mm

    def coarse(x, y, out):
        return product(x.bfloat16().float(), y.bfloat16().float(), out=out)

    monkeypatch.setattr(torch, "mm", coarse)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    for threshold in similarity[:20].tolist():  # thresholds just beside a sample's own similarity
        for near in (threshold - 1e-6, min(threshold + 1e-6, 1.0)):
            assert torch.equal(functional.have_copies(samples, train, near), similarity > near)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_copies_in_every_dtype_and_under_autocast(dtype):
    samples, train = (each.to(dtype) for each in decaying(32))
    exact = table(samples, train)
    expected = ((exact if dtype == torch.float64 else exact.float()) > 0.6).any(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(functional.have_copies(samples, train, 0.6), expected)


def test_zero_rows_are_like_nothing():
    samples, train = decaying(16)
    samples[::2], train[::5] = 0.0, 0.0
    found = functional.have_copies(samples, train, 0.5)
    assert not found[::2].any()
    assert found[1::2].any()
    assert functional.have_copies(samples, train, -0.5).all()


def test_features_on_the_disk_are_read_where_they_are(tmp_path, recwarn):
    samples, train = decaying(32)
    np.save(tmp_path / "train.npy", train.numpy())
    stored = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert torch.equal(functional.have_copies(samples, stored, 0.7), functional.have_copies(samples, train, 0.7))
    for one, other in zip(functional.nearest(samples, stored), functional.nearest(samples, train), strict=True):
        assert torch.equal(one, other)
    assert not list(recwarn)


def test_mistakes():
    with pytest.raises(UserError, match="features have size 3, train_features 4"):
        functional.have_copies(torch.eye(3), torch.eye(4))
    with pytest.raises(UserError, match="threshold 2 is outside"):
        functional.have_copies(torch.eye(3), torch.eye(3), 2)
    broken = gaussian(20_000, 4)
    broken[19_000, 2] = torch.nan
    with pytest.raises(UserError, match="train_features hold a value that is not finite in row 19000"):
        functional.have_copies(torch.eye(4), broken)
