"""The error of the predicted noise against closed forms."""

from __future__ import annotations

import pytest
import torch

from repro import registry
from repro.analysis import score_error, score_error_by_ratio
from repro.denoisers import EmpiricalDenoiser, GaussianDenoiser, LowRankMixtureDenoiser, UnderKernel
from repro.kernels import EDM, VP

SHAPE = (1, 3, 3)


@pytest.mark.parametrize("kernel", registry.names("kernels"))
def test_between_two_gaussians_in_closed_form(kernel):
    """Predicted noises are linear in x_t, so the mean error is one factor times the mean square of x_t."""
    kernel = registry.build("kernels", kernel)
    wide, narrow = GaussianDenoiser(kernel, SHAPE, std=1.0), GaussianDenoiser(kernel, SHAPE, std=0.5)
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(4000, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    for found in score_error_by_ratio(wide, narrow, 0.5 * x_0, eps, [0.1, 1.0, 8.0], batch_size=700):
        r = found.ratio
        right = 9 * (r / (1 + r**2) - r / (0.25 + r**2)) ** 2 * (0.25 + r**2)
        assert abs(found.mean - right) < 5 * found.standard_error
        assert found.standard_error < 0.02 * right


def test_does_not_depend_on_kernels():
    first, second = LowRankMixtureDenoiser(VP(), SHAPE, 2, 3), LowRankMixtureDenoiser(EDM(), SHAPE, 2, 3, bases_seed=1)
    x_0, eps, ratio = torch.randn(5, *SHAPE), torch.randn(5, *SHAPE), torch.tensor(0.7, dtype=torch.float64)
    under_edm = score_error(first, second, x_0, eps, EDM().time_of_ratio(ratio))
    under_vp = score_error(first, second, x_0, eps, VP().time_of_ratio(ratio), kernel=first.kernel)
    torch.testing.assert_close(under_edm, under_vp, rtol=1e-7, atol=1e-9)
    same = score_error(first, UnderKernel(first, EDM()), x_0, eps, ratio)
    assert same.max() < 1e-12
    alpha, sigma = VP().alpha(VP().time_of_ratio(ratio)), VP().sigma(VP().time_of_ratio(ratio))
    x_t = alpha * x_0.double() + sigma * eps.double()
    elsewhere = GaussianDenoiser(VP(), SHAPE)
    right = (first.eps(x_t, VP().time_of_ratio(ratio)) - elsewhere.eps(x_t, VP().time_of_ratio(ratio))).square()
    ours = score_error(first, elsewhere, x_0, eps, VP().time_of_ratio(ratio))
    torch.testing.assert_close(ours, right.flatten(1).sum(1))


def test_labels_reach_both():
    images = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8)
    labels, t = torch.arange(20) % 2, torch.tensor(0.5)
    both = EmpiricalDenoiser(images, EDM(), labels=labels)
    alone = EmpiricalDenoiser(images[labels == 1], EDM())

    class Alone(EmpiricalDenoiser):
        def denoise(self, x_t, t, labels=None):
            assert (labels == 1).all()
            return alone.denoise(x_t, t)

    x_0, eps = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    given = torch.ones(4, dtype=torch.int64)
    assert score_error(both, Alone(images, EDM()), x_0, eps, t, given).max() < 1e-12
    assert score_error(both, alone, x_0, eps, t).max() > 1e-3
    (found,) = score_error_by_ratio(both, Alone(images, EDM()), x_0, eps, [0.5], given, batch_size=3)
    assert found.mean < 1e-12
