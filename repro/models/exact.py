"""A denoiser with a closed form as a model: nothing to train, sampled and scored like the others."""

from __future__ import annotations

from repro.denoisers import Denoiser
from repro.models.denoising import Denoising
from repro.records import record_of
from repro.samplers.base import Sampler

__all__ = ["Exact"]


class Exact(Denoising):
    """Draws from a denoiser that is known exactly, such as the empirical optimum of a training set.

    The data that the denoiser is made of count as its training data.

    Args:
        denoiser: The denoiser.
        sampler: How images are drawn from it, unless another sampler is given.
    """

    def __init__(self, denoiser: Denoiser, sampler: Sampler) -> None:
        super().__init__(denoiser, sampler)
        if denoiser.data is not None:
            self.data_record, self.data_fingerprint = record_of(denoiser.data), denoiser.data.fingerprint()

    @property
    def takes_no_labels(self) -> bool:
        """True: the formula can also be evaluated without a label (all classes pooled)."""
        return True
