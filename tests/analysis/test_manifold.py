"""Noise planes, their region maps, and the slope of the map from noise to image."""

from __future__ import annotations

import pytest
import torch

from repro.analysis import NoisePlane, local_lipschitz, region_agreement, region_map
from repro.denoisers import EmpiricalDenoiser, GaussianDenoiser
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.images import to_uint8
from repro.kernels import EDM, VP
from repro.models.exact import Exact
from repro.noise import draw_noise
from repro.samplers.heun import Heun
from repro.samplers.stochastic import Ancestral

SHAPE = (1, 4, 4)


def plane(a=5, b=4, corners=(3, 8, 1)):
    return NoisePlane(corners, torch.linspace(-0.1, 1.1, a), torch.linspace(-0.1, 1.1, b))


def test_points_of_the_plane_by_its_formula():
    first, second, third = draw_noise([3, 8, 1], SHAPE)
    noise, grid = plane().draw(SHAPE), plane()
    assert len(grid) == len(noise) == 20
    for i, a in enumerate(grid.a.tolist()):
        for j, b in enumerate(grid.b.tolist()):
            right = first + a * (second - first) + b * (third - first)
            torch.testing.assert_close(noise[4 * i + j], right, rtol=1e-5, atol=1e-6)


def test_parts_are_the_whole():
    whole = plane().draw(SHAPE)
    parts = [plane().part(start, 7) for start in range(0, 20, 7)]
    assert [len(part) for part in parts] == [7, 7, 6]
    assert torch.equal(torch.cat([part.draw(SHAPE) for part in parts]), whole)


def test_corners_give_the_images_of_their_seeds():
    model = Exact(EmpiricalDenoiser(torch.randint(0, 256, (9, *SHAPE), dtype=torch.uint8), VP()), Heun(steps=8))
    grid = NoisePlane([3, 8, 1], [0.0, 1.0], [0.0, 1.0])
    images = to_uint8(model.generate(grid))
    assert torch.equal(images[[0, 2, 1]], model.sample([3, 8, 1]))


def test_a_stochastic_sampler_is_refused():
    model = Exact(GaussianDenoiser(VP(), SHAPE), Ancestral(4))
    with pytest.raises(UserError, match="one noise; take a deterministic sampler"):
        model.generate(plane())


def test_region_map_by_a_slow_count():
    images = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8)
    images[4:9] = images[0]
    images[11] = images[2]
    features = Pixels().features(images)
    found = region_map(features, features[[0, 1, 2]], (5, 4), 0.6)
    for point in range(20):
        similar = [float(features[point] @ features[k] / features[point].norm() / features[k].norm()) for k in range(3)]
        right = similar.index(max(similar)) if max(similar) > 0.6 else -1
        assert found.regions.flatten()[point] == right
        assert found.similarity.flatten(0, 1)[point].tolist() == pytest.approx(similar, abs=1e-5)
    assert (found.regions.flatten()[4:9] == 0).all()
    assert found.regions.flatten()[11] == 2
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares[0] == (found.regions == 0).double().mean().item()


def test_agreement_of_maps():
    features = torch.randn(20, 6)
    one = region_map(features, features[:3], (5, 4), 0.3)
    other = region_map(features, features[[1, 0, 2]], (5, 4), 0.3)
    assert region_agreement(one, one) == 1
    same = [(p == q) for p, q in zip(one.regions.flatten().tolist(), other.regions.flatten().tolist(), strict=True)]
    assert region_agreement(one, other) == sum(same) / 20
    with pytest.raises(UserError, match="maps of"):
        region_agreement(one, region_map(features, features[:3], (4, 5), 0.3))


def test_slope_of_the_gaussian_transport_is_its_growth():
    """The map from noise to image is linear there, with one factor in every direction."""
    denoiser = GaussianDenoiser(EDM(sigma_min=1e-3), SHAPE, std=0.5)
    images = Exact(denoiser, Heun(steps=200)).generate(plane(9, 7))
    found = local_lipschitz(images, plane(9, 7).draw(SHAPE), (9, 7))
    right = 0.5 * 80 / (80**2 + 0.25) ** 0.5
    torch.testing.assert_close(found, torch.full((9, 7), right).double(), rtol=2e-3, atol=0)


def test_slope_is_the_steepest_of_the_neighbours():
    noises = plane(3, 3).draw(SHAPE)
    images = noises.clone()
    images[4] += 10
    found = local_lipschitz(images, noises, (3, 3))
    slopes = [float((images[4] - images[k]).norm() / (noises[4] - noises[k]).norm()) for k in (1, 3, 5, 7)]
    assert found[1, 1].item() == pytest.approx(max(slopes), rel=1e-5)
    for (i, j), slope in zip([(0, 1), (1, 0), (1, 2), (2, 1)], slopes, strict=True):
        assert found[i, j].item() == pytest.approx(max(slope, 1), rel=1e-5)
    assert found[0, 0].item() == pytest.approx(1, rel=1e-5)
    line = local_lipschitz(images[:3], noises[:3], (1, 3))
    torch.testing.assert_close(line, torch.ones(1, 3).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("corners", [[1, 2], [1, 1, 2], [1, 2, 3, 4]])
def test_corner_mistakes(corners):
    with pytest.raises(UserError, match="three different seeds"):
        NoisePlane(corners, [0.0], [0.0])


def test_grid_mistakes():
    with pytest.raises(UserError, match="the grid is empty"):
        NoisePlane([1, 2, 3], [], [0.0])
    with pytest.raises(UserError, match="20 images for a grid of 3 x 3"):
        region_map(torch.randn(20, 4), torch.randn(3, 4), (3, 3), 0.6)
    with pytest.raises(UserError, match="no neighbours"):
        local_lipschitz(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), (1, 1))
