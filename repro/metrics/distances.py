"""Distances between two sets of samples as classes: in any descriptor's features, and in Inception's (FID, KID)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.descriptors.base import Descriptor
from repro.devices import onto
from repro.errors import UserError
from repro.metrics.base import numbers_of
from repro.metrics.functional.distances import frechet_distance, kernel_distance
from repro.metrics.functional.similarity import as_features
from repro.metrics.inception import Inception
from repro.metrics.look import Look

__all__ = ["FID", "KID", "FrechetDistance", "KernelDistance", "SetMetric"]

_NO_SEED = -1


class SetMetric(Metric):
    """A distance between what two systems draw, or between samples and a training set, each as a whole.

    Unlike a score of pairs it does not ask what becomes of one noise. Features are kept as float64 until the distance
    is computed (80 MB for 10,000 of size 1,000), and of each set every seed counts once, whatever batches and
    processes it came from; samples without seeds all count.

    Attributes:
        inputs: What ``update`` takes: ``features`` of the comparison's descriptor or uint8 ``images``.
        paired: False, as row i of one set has nothing to do with row i of the other.

    Args:
        descriptor: A descriptor or its registered name, for metrics of features that are given images; ``Pixels``
            when left out.
        normalize: Whether images are floats in [0, 1], as torchmetrics says it, rather than uint8.
        **kwargs: Of ``torchmetrics.Metric``.
    """

    higher_is_better: bool | None = False
    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    inputs: ClassVar[Literal["features", "images"]] = "features"
    paired: ClassVar[bool] = False

    def __init__(self, descriptor: Descriptor | str | None = None, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = Look.of(descriptor, normalize)
        for side in ("first", "second"):
            self.add_state(side, default=[], dist_reduce_fx=None)
            self.add_state(f"{side}_seeds", default=[], dist_reduce_fx=None)

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> float:
        """Computes the distance of two sets of features, float64 (n, d) and (m, d)."""

    def describe(self, samples: Tensor, name: str) -> Tensor:
        """Computes features (n, d) of what ``update`` was given."""
        return as_features(self.look.features(samples, self.device), name)

    def label(self, descriptor: str) -> str:
        """Returns the name in a table: with that of the descriptor whose features it takes."""
        return f"{type(self).__name__}[{descriptor}]" if self.inputs == "features" else type(self).__name__

    def update(
        self,
        a: Tensor | None = None,
        b: Tensor | bool | None = None,
        seeds: Iterable[int] | Tensor | None = None,
        real: bool | None = None,
    ) -> None:
        """Adds samples to either set or to both.

        Args:
            a: Of the first set, as ``inputs`` says; None for none.
            b: Of the second set, of another number if need be; or ``real``, as torchmetrics has it there.
            seeds: Number of each sample's noise, at least 0; of both sets when both are given. Each counts once then.
            real: Whether ``a`` are real images, which make the second set, or generated ones, the first.
        """
        if isinstance(b, bool):
            b, real = None, b
        if real is not None and b is not None:
            raise UserError("give one set with real=True or real=False, or two without")
        if real:
            a, b = None, a
        for side, samples in (("first", a), ("second", b)):
            if samples is None:
                continue
            features = onto(self.device, self.describe(samples, f"the {side} features"), torch.float64)
            numbers = torch.full((len(features),), _NO_SEED) if seeds is None else numbers_of(seeds, len(features))
            if seeds is not None and bool((numbers < 0).any()):
                raise UserError(f"seed {int(numbers.min())} is negative; number the samples from 0")
            getattr(self, side).append(features)
            getattr(self, f"{side}_seeds").append(onto(self.device, numbers))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states, one tensor of each a process."""
        for side in ("first", "second"):
            features, seeds = getattr(self, side), getattr(self, f"{side}_seeds")
            none = torch.zeros(0, 0, dtype=torch.float64, device=self.device)
            setattr(self, side, [torch.cat(features) if features else none])
            setattr(self, f"{side}_seeds", [torch.cat(seeds) if seeds else none.flatten().long()])
        super().sync(*args, **kwargs)

    def _set(self, side: str) -> Tensor:
        parts = [part for part in getattr(self, side) if len(part)]
        if not parts:
            raise UserError(f"{type(self).__name__} has seen no sample of the {side} set; call update first")
        features, seeds = torch.cat(parts), torch.cat(getattr(self, f"{side}_seeds"))
        order = seeds.argsort(stable=True)
        features, seeds = features[order], seeds[order]
        kept = torch.ones_like(seeds, dtype=torch.bool)
        kept[1:] = (seeds[1:] != seeds[:-1]) | (seeds[1:] == _NO_SEED)
        self._check_copies(features, seeds, kept)
        return features[kept]

    @staticmethod
    def _check_copies(features: Tensor, seeds: Tensor, kept: Tensor) -> None:
        copies = (~kept).nonzero().flatten()
        gap = (features[copies] - features[copies - 1]).norm(dim=1)
        torn = gap > 1e-3 * features[copies].norm(dim=1) + 1e-12
        if bool(torn.any()):
            raise UserError(
                f"seed {int(seeds[copies][torn][0])} was given twice with different images; draw each noise once, and "
                "reset() between models"
            )

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plots a distance, or a list of them over steps, as torchmetrics does; see :meth:`CountMetric.plot`."""
        return self._plot(val, ax)

    def compute(self) -> Tensor:
        """Computes the distance, float64."""
        value = self.distance(self._set("first"), self._set("second"))
        return torch.tensor(value, dtype=torch.float64, device=self.device)


class FrechetDistance(SetMetric):
    """Fréchet distance of two sets in the features of a descriptor, reported as ``FrechetDistance[<descriptor>]``.

    The class of :func:`repro.metrics.functional.frechet_distance`, which has the formula. It is FID only on
    Inception's features; see :class:`FID`. The value depends on the descriptor and on the numbers of samples.

    Args:
        **kwargs: Of ``torchmetrics.Metric``.

    Example:
        >>> metric = FrechetDistance()
        >>> metric.update(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
        >>> float(metric.compute())
        9.0
    """

    def distance(self, a: Tensor, b: Tensor) -> float:
        """See :func:`repro.metrics.functional.frechet_distance`."""
        return frechet_distance(a, b)


class KernelDistance(SetMetric):
    """Squared maximum mean discrepancy of two sets in a descriptor's features: ``KernelDistance[<descriptor>]``.

    The class of :func:`repro.metrics.functional.kernel_distance`, which has the formula. It is KID only on
    Inception's features; see :class:`KID`.

    Args:
        subsets: How many random subsets the mean is taken over.
        subset_size: Samples in each.
        **kwargs: Of ``torchmetrics.Metric``.
    """

    def __init__(self, subsets: int = 100, subset_size: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if subsets < 1 or subset_size < 2:
            raise UserError(f"{subsets} subsets of {subset_size} samples; give at least 1 of at least 2")
        self.subsets, self.subset_size = int(subsets), int(subset_size)

    def distance(self, a: Tensor, b: Tensor) -> float:
        """See :func:`repro.metrics.functional.kernel_distance`."""
        return kernel_distance(a, b, self.subsets, self.subset_size)


class _OnInception(SetMetric):
    """Takes uint8 images and describes them by torchmetrics' Inception, which is no part of the metric's modules."""

    inputs: ClassVar[Literal["features", "images"]] = "images"

    def __init__(self, weights: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inception = Inception(weights)
        self.inception.check()

    def describe(self, samples: Tensor, name: str) -> Tensor:
        """Inception's 2,048 features of uint8 images, shape (n, 2048)."""
        return self.inception.features(self.look.images(samples), self.device)


class FID(_OnInception, FrechetDistance):
    """Fréchet Inception distance of two sets of uint8 images; lower is closer.

    Features are those of torchmetrics (torch-fidelity's Inception, resized with antialiasing); the formula is that of
    :class:`FrechetDistance`. Compare values of one number of samples only.

    Args:
        weights: File of Inception's weights; by default the one in PyTorch's cache.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        UserError: no torch-fidelity or no weights; at the first update, weights that are damaged.
    """


class KID(_OnInception, KernelDistance):
    """Kernel Inception distance of two sets of uint8 images; lower is closer.

    Args:
        weights: File of Inception's weights; by default the one in PyTorch's cache.
        **kwargs: Of :class:`KernelDistance`.

    Raises:
        UserError: no torch-fidelity or no weights; at the first update, weights that are damaged.
    """
