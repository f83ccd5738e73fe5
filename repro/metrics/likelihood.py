"""Likelihood of images under one model as a class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.denoisers import Denoiser
from repro.errors import UserError
from repro.metrics.base import gathered
from repro.metrics.functional.likelihood import Trace, bits_per_dimension

__all__ = ["BitsPerDimension"]


class BitsPerDimension(Metric):
    """Mean bits per dimension of images under one model; the class of ``bits_per_dimension``.

    Lower is more likely. Training images that are likelier than held-out ones tell of memorisation: ``repro test
    --metric BitsPerDimension`` gives both, for as many images of each as there are seeds.

    Args:
        steps: Steps from the smallest noise level to the largest.
        trace: ``exact``, a derivative a pixel, or ``hutchinson``.
        probes: Random signs an image, for ``hutchinson``.
        **kwargs: Of ``torchmetrics.Metric``.

    Attributes:
        inputs: ``model``: it is no score of a pair, see :mod:`repro.metrics.protocol`.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import EDM
        >>> metric = BitsPerDimension(steps=16, trace="exact")
        >>> metric.update(GaussianDenoiser(EDM(), (1, 2, 2)), torch.full((3, 1, 2, 2), 128, dtype=torch.uint8))
        >>> round(float(metric.compute()), 1), metric.count
        (7.3, 3)
    """

    inputs: ClassVar[str] = "model"
    higher_is_better: bool | None = False
    is_differentiable: bool | None = False
    full_state_update: bool | None = False

    rows: list[Tensor] | Tensor

    def __init__(self, steps: int = 128, trace: Trace = "hutchinson", probes: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps, self.trace, self.probes = steps, trace, probes
        # Number of the image and its bits; a number that comes twice, as a padded sampler sends it, counts once.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(
        self,
        denoiser: Denoiser,
        images: Tensor,
        labels: Tensor | None = None,
        seeds: Iterable[int] | Tensor | None = None,
    ) -> None:
        """Adds images.

        Args:
            denoiser: Of the model.
            images: uint8 (n, C, H, W), on the denoiser's device.
            labels: Class numbers, int64 (n,), or None.
            seeds: Number of each image, of its dequantising noise and signs; on from the last one by default.

        Raises:
            UserError: what :func:`repro.metrics.functional.bits_per_dimension` refuses.
        """
        known = self._known()
        first = int(known[:, 0].max()) + 1 if len(known) else 0
        numbers = range(first, first + len(images)) if seeds is None else [int(seed) for seed in seeds]
        bits = bits_per_dimension(denoiser, images, labels, numbers, self.steps, self.trace, self.probes).bits
        own = torch.tensor([*numbers], dtype=torch.float64, device=self.device)
        self.rows = [known, torch.stack([own, bits.to(self.device)], dim=1)]

    def _known(self) -> Tensor:
        """Number and bits of each image, (n, 2), in the order of the numbers."""
        rows = torch.cat([_none(self.device), *self.rows]) if isinstance(self.rows, list) else self.rows
        rows = rows[rows[:, 0].argsort(stable=True)]
        return rows[rows[:, 0].diff(prepend=rows.new_full((1,), -1)) > 0]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states; a process that saw no image takes part with none."""
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(_none(self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Tensor:
        """Computes the mean over the images, float64."""
        rows = self._known()
        if not len(rows):
            raise UserError("BitsPerDimension has seen no image; call update first")
        return rows[:, 1].mean()

    @property
    def count(self) -> int:
        """Number of the images, over all processes."""
        with gathered(self):
            return len(self._known())

    def standard_error(self) -> float:
        """Computes the standard error of the mean over the images; not a number for a single one."""
        with gathered(self):
            bits = self._known()[:, 1]
        return float(bits.std()) / math.sqrt(len(bits))

    def interval(self) -> tuple[float, float]:
        """Computes the 95 % interval of the mean, normal approximation."""
        mean, width = float(self.compute()), NormalDist().inv_cdf(0.975) * self.standard_error()
        return mean - width, mean + width

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a value, or a list of values over steps, as :meth:`repro.metrics.CountMetric.plot` does."""
        return self._plot(val, ax)


def _none(device: torch.device) -> Tensor:
    return torch.zeros(0, 2, dtype=torch.float64, device=device)
