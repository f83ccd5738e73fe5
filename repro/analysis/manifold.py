r"""What a sampler makes of a plane of noises: a map of the regions that give one image, and how steep it is.

The plane goes through three noises, :math:`\epsilon(a, b) = \epsilon_1 + a (\epsilon_2 - \epsilon_1) + b (\epsilon_3 -
\epsilon_1)`. A point belongs to the image of a corner when the similarity to it exceeds the threshold of RP.

Source: Zhang et al. 2024, arXiv:2310.05264, section 3.2.3 and figure 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.errors import UserError
from repro.metrics.functional.similarity import cosine, exceeds
from repro.noise import NoiseStream, draw_noise

__all__ = ["NoisePlane", "RegionMap", "local_lipschitz", "region_agreement", "region_map"]


class NoisePlane(NoiseStream):
    """A grid of noises on the plane through three numbered ones, as a noise stream that any model draws from.

    Args:
        corners: The three seeds: the points (0, 0), (1, 0) and (0, 1) in (a, b).
        a: Values of a along the rows.
        b: Values of b along the columns.

    Raises:
        UserError: not three different seeds, or an empty grid; a second draw, which a point of a plane has not.

    Example:
        >>> plane = NoisePlane([4, 5, 6], a=[0.0, 0.5], b=[0.0, 0.25, 1.0])
        >>> noise = plane.draw((1, 2, 2))
        >>> torch.equal(noise[[0, 2]], draw_noise([4, 6], (1, 2, 2)))
        True
    """

    def __init__(self, corners: Sequence[int], a: Sequence[float] | Tensor, b: Sequence[float] | Tensor) -> None:
        if len(corners) != 3 or len(set(corners)) != 3:
            raise UserError(f"a plane goes through three different seeds; got {list(corners)}")
        if not len(a) or not len(b):
            raise UserError("the grid is empty; give at least one value of a and of b")
        super().__init__(corners)
        self.a, self.b = torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32)
        self._rows, self._drawn = slice(None), False

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of values of a and of b, the sides of the grid."""
        return len(self.a), len(self.b)

    def __len__(self) -> int:
        return len(range(len(self.a) * len(self.b))[self._rows])

    def part(self, first: int, count: int) -> NoisePlane:
        """Cuts out some points of the plane, counted row by row, as a noise stream of their own."""
        chosen = NoisePlane(self.seeds, self.a, self.b)
        chosen._rows = slice(first, first + count)
        return chosen

    def draw(self, shape: Sequence[int]) -> Tensor:
        r"""Draws the noises of all points, float32 (points, \*shape), row by row; only once."""
        if self._drawn:
            raise UserError("a point of a noise plane has one noise; take a deterministic sampler")
        self._drawn = True
        first, second, third = draw_noise(self.seeds, shape)
        a, b = torch.meshgrid(self.a, self.b, indexing="ij")
        a, b = (each.flatten()[self._rows].view(-1, *[1] * len(shape)) for each in (a, b))
        return (1 - a - b) * first + a * second + b * third


@dataclass(frozen=True)
class RegionMap:
    """Which corner's image each point of a plane gives.

    Attributes:
        regions: Number of the corner that is most alike, or -1 when none is above the threshold; int64 (A, B).
        similarity: To each corner, (A, B, corners).
        threshold: Of the similarity, strict.
    """

    regions: Tensor
    similarity: Tensor
    threshold: float

    @property
    def shares(self) -> list[float]:
        """Shares of the plane that give each corner's image; the last one is the share that gives none of them."""
        corners = self.similarity.shape[2]
        return [(self.regions == region).double().mean().item() for region in [*range(corners), -1]]


def region_map(features: Tensor, anchors: Tensor, grid: tuple[int, int], threshold: float) -> RegionMap:
    """Maps each point of a plane to the corner whose image it gives, from descriptors of the images.

    Args:
        features: Descriptors of the images of the plane, row by row, (A B, n).
        anchors: Descriptors of the images at the corners, (corners, n).
        grid: (A, B).
        threshold: Similarity above which two images are the same.

    Raises:
        UserError: features of another number than the grid has points.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 1.0], [0.0, 1.0]])
        >>> region_map(features, features[[0, 3]], (2, 2), 0.9).regions.tolist()
        [[0, 0], [-1, 1]]
    """
    if len(features) != grid[0] * grid[1]:
        raise UserError(f"{len(features)} images for a grid of {grid[0]} x {grid[1]} points")
    similarity = torch.stack([cosine(features, anchor.expand_as(features)) for anchor in anchors], dim=1)
    most, region = similarity.max(1)
    regions = torch.where(exceeds(most, threshold), region, -1)
    return RegionMap(regions.view(grid), similarity.view(*grid, len(anchors)), threshold)


def region_agreement(first: RegionMap, second: RegionMap) -> float:
    """Part of the plane on which two maps name the same region, those that belong to no corner included."""
    if first.regions.shape != second.regions.shape:
        raise UserError(f"maps of {tuple(first.regions.shape)} and {tuple(second.regions.shape)} points")
    return (first.regions == second.regions).double().mean().item()


def local_lipschitz(images: Tensor, noises: Tensor, grid: tuple[int, int]) -> Tensor:
    r"""Computes the steepest slope of the map from noise to image between each point of a plane and its neighbours.

    .. math:: L(\epsilon) = \max_{\epsilon'} \|f(\epsilon) - f(\epsilon')\| / \|\epsilon - \epsilon'\|

    over the up to four neighbours on the grid: a lower bound of the local Lipschitz constant.

    Args:
        images: Float images of the plane, row by row, (A B, C, H, W).
        noises: Their noises, in the same order.
        grid: (A, B), at least 2 points.

    Returns:
        float64 (A, B).

    Example:
        >>> plane = NoisePlane([0, 1, 2], torch.linspace(0, 1, 3), torch.linspace(0, 1, 2))
        >>> noises = plane.draw((1, 4, 4))
        >>> local_lipschitz(3 * noises, noises, plane.grid).round(decimals=4).unique().tolist()
        [3.0]
    """
    if grid[0] * grid[1] < 2:
        raise UserError(f"a grid of {grid[0]} x {grid[1]} points has no neighbours")
    values, points = (each.flatten(1).double().view(*grid, -1) for each in (images, noises))
    steepest = torch.zeros(grid, dtype=torch.float64)
    for axis in (0, 1):
        if grid[axis] < 2:
            continue
        slope = values.diff(dim=axis).norm(dim=2) / points.diff(dim=axis).norm(dim=2)
        count = grid[axis] - 1
        for start in (0, 1):
            region = steepest.narrow(axis, start, count)
            torch.maximum(region, slope.to(region), out=region)
    return steepest
