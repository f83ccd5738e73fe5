"""Images drawn from a known distribution, as many as wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.data.base import Facts, ImageData
from repro.data.source import ImageSource
from repro.errors import UserError, check_at_least
from repro.noise import mixture_bases

__all__ = ["LowRankMixture"]


class LowRankMixture(ImageData):
    """Samples of an equal mixture of Gaussians on random planes of low dimension; see :mod:`repro.denoisers.mixture`.

    They are floats, as the denoiser takes them: n = C H W values of mean square d / n, a few beyond [-1, 1]. Their
    class is the component. ``subset`` takes N of them, ``holdout`` keeps some for estimates on fresh ones; with as many
    ``samples`` as a run sees images, each is seen once.

    Args:
        image_shape: (C, H, W).
        components: K.
        rank: d, the dimension of the planes.
        bases_seed: Number of the planes.
        sample_seed: Number of the samples.
        samples: How many there are.
        common: As of every data set, except that there are no pictures to resize or turn grey.

    Raises:
        UserError: a value outside its range; ``resize`` or ``grayscale``.

    Example:
        >>> LowRankMixture(subset=64).images().square().mean() < 0.3
        tensor(True)

    Source: Zhang et al. 2024, arXiv:2310.05264, section 3.2.1.
    """

    dtype = torch.float32
    reaches_out = False

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (3, 4, 4),
        components: int = 2,
        rank: int = 7,
        bases_seed: int = 0,
        sample_seed: int = 0,
        samples: int = 100_000,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if self.resize is not None or self.grayscale:
            option = "grayscale" if self.grayscale else f"resize {self.resize}"
            raise UserError(f"LowRankMixture takes no {option}; give image_shape [C, H, W]")
        check_at_least(1, samples=samples)
        self.bases = mixture_bases(image_shape, components, rank, bases_seed)
        channels, height, width = image_shape
        self.shape, self.components, self.rank = (channels, height, width), components, rank
        self.bases_seed, self.sample_seed, self.samples = bases_seed, sample_seed, samples

    def facts(self) -> Facts:
        """Returns the number, shape and classes of the mixture, known without drawing from it."""
        return Facts(self.samples, self.shape, self.components)

    def open_source(self) -> ImageSource:
        """Draws components and coordinates; the images are made as they are read."""
        generator = torch.Generator().manual_seed(self.sample_seed)
        labels = torch.randint(0, self.components, (self.samples,), generator=generator)
        coordinates = torch.randn(self.samples, self.rank, generator=generator, dtype=torch.float64)
        return _Planes(self.bases, labels, coordinates, self.shape)


class _Planes(ImageSource):
    def __init__(self, bases: Tensor, labels: Tensor, coordinates: Tensor, image_shape: tuple[int, int, int]) -> None:
        self.bases, self.labels, self.coordinates, self.image_shape = bases, labels, coordinates, image_shape
        self.class_names = tuple(f"component {k}" for k in range(len(bases)))

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Points of the planes, float32; the same bits in any batch."""
        rows = torch.from_numpy(np.array(indices))
        labels, coordinates = self.labels[rows], self.coordinates[rows]
        points = torch.zeros(len(rows), self.bases.shape[1], dtype=self.bases.dtype)
        for axis in range(self.bases.shape[2]):
            points += self.bases[labels, :, axis] * coordinates[:, axis, None]
        return points.float().view(-1, *self.image_shape)
