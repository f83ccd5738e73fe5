"""A denoiser with a closed form as a model: nothing to train, sampled and scored like the others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from repro.denoisers import Denoiser
from repro.models.base import GenerativeModule
from repro.noise import NoiseStream
from repro.registry import record_of
from repro.samplers.base import Sampler

__all__ = ["Exact"]


class Exact(GenerativeModule):
    """Samples from a denoiser that is known exactly, such as the empirical optimum of a training set.

    The data that the denoiser is made of count as its training data.

    Args:
        denoiser: The denoiser.
        sampler: How images are drawn from it.
    """

    trainable: ClassVar[bool] = False

    def __init__(self, denoiser: Denoiser, sampler: Sampler) -> None:
        super().__init__()
        self.denoiser, self.sampler = denoiser, sampler
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes
        if denoiser.data is not None:
            self.data_record, self.data_fingerprint = record_of(denoiser.data), denoiser.data.fingerprint()

    @property
    def takes_no_labels(self) -> bool:
        """A closed form over all classes is there too."""
        return True

    def generate(self, noise: NoiseStream, labels: Tensor | None = None) -> Tensor:
        """Images of numbered noises."""
        return self.sampler.sample(self.guided(self.denoiser), noise, labels)
