"""Operators: the laws, closed forms, and mistakes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from repro import registry
from repro.errors import UserError
from repro.inverse.operators.filters import Downsample, GaussianBlur, HighDynamicRange, MotionBlur
from repro.inverse.operators.masks import CentreMask, MaskFile, RandomMask
from repro.testing.operators import check_operator


def picture(path, rows, columns, hidden):
    image = Image.new("L", (columns, rows), 255)
    for column, row in hidden:
        image.putpixel((column, row), 0)
    image.save(path)
    return str(path)


@pytest.mark.parametrize("name", registry.names("operators"))
def test_every_operator_obeys_the_laws(name, tmp_path):
    arguments = {"path": picture(tmp_path / "mask.png", 16, 16, [(1, 2), (5, 5)])} if name == "MaskFile" else {}
    check_operator(registry.build("operators", name, **arguments))


def test_a_broken_adjoint_breaks_the_law():
    class Wrong(Downsample):
        def adjoint(self, y, image_shape):
            return 2 * super().adjoint(y, image_shape)

    with pytest.raises(AssertionError, match="<Ax, y>"):
        check_operator(Wrong())


@pytest.mark.parametrize(("side", "hidden"), [(0.5, 16 * 16), (0.78125, 25 * 25)])
def test_the_papers_masks(side, hidden):
    mask = CentreMask(side).mask(32, 32)
    assert (mask == 0).sum() == hidden
    rows = (mask == 0).any(1).nonzero().flatten()
    assert abs(int(rows[0]) - (31 - int(rows[-1]))) <= 1


def test_masks_hide_what_they_say(tmp_path):
    x = torch.ones(1, 3, 8, 8)
    assert (RandomMask(0.25, seed=3)(x) == 0).sum() == 3 * 16
    assert not torch.equal(RandomMask(0.25, seed=3)(x), RandomMask(0.25, seed=4)(x))
    y = MaskFile(picture(tmp_path / "m.png", 8, 8, [(2, 1)]))(x)
    assert (y == 0).nonzero().tolist() == [[0, c, 1, 2] for c in range(3)]


def test_downsampling_is_the_mean_of_blocks():
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    expected = torch.stack([x[..., 3 * i : 3 * i + 3, :].mean(-2) for i in range(2)], -2)
    expected = torch.stack([expected[..., 3 * j : 3 * j + 3].mean(-1) for j in range(2)], -1)
    torch.testing.assert_close(Downsample(3)(x), expected)


def test_gaussian_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    delta = torch.zeros(9, 9, dtype=torch.float64)
    delta[4, 4] = 1
    expected = torch.from_numpy(gaussian_filter(delta.numpy(), sigma=1.7))
    torch.testing.assert_close(GaussianBlur(9, 1.7).kernel(), expected, rtol=1e-10, atol=1e-12)


def test_motion_blur_runs_along_its_line():
    row = MotionBlur(5, angle=0).kernel()
    assert row[2].sum() == pytest.approx(1)
    column = MotionBlur(5, angle=90).kernel()
    torch.testing.assert_close(column, row.T, rtol=0, atol=1e-12)
    diagonal = MotionBlur(5, angle=45).kernel()
    torch.testing.assert_close(diagonal, diagonal.flip(0, 1))
    assert diagonal[1, 3] > diagonal[1, 1]


def test_nonlinear_operators_have_no_adjoint():
    operator = HighDynamicRange()
    with pytest.raises(UserError, match="HighDynamicRange is not linear"):
        operator.adjoint(torch.zeros(1, 1, 4, 4), (1, 4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: CentreMask(1.0), "side is 1"),
        (lambda path: RandomMask(0), "hidden is 0"),
        (lambda path: Downsample(1), "factor is 1"),
        (lambda path: Downsample(3)(torch.zeros(1, 1, 8, 8)), "factor 3 does not divide"),
        (lambda path: GaussianBlur(4), "odd"),
        (lambda path: GaussianBlur(9)(torch.zeros(1, 1, 4, 4)), "too wide"),
        (lambda path: MaskFile("missing.png"), "no mask at missing.png"),
        (lambda path: MaskFile(picture(path / "a.png", 4, 4, [])), "hides nothing"),
        (lambda path: MaskFile(picture(path / "a.png", 4, 4, [(0, 0)]))(torch.zeros(1, 1, 8, 8)), "4x4.*8x8"),
        (lambda path: MaskFile(__file__), "cannot read mask"),
    ],
)
def test_mistakes_are_one_line(make, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)
