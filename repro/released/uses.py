"""The two uses of the networks that consistency models share with their teachers, which no file tells."""

from __future__ import annotations

from typing import Literal

from repro.kernels import EDM
from repro.models.denoising import consistency_boundary
from repro.parameterizations import EDMPreconditioning
from repro.released.base import Parts
from repro.samplers.base import Sampler
from repro.samplers.consistency import Consistency
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes

__all__ = ["Use", "parts_of_use", "words_of_use"]

Use = Literal["consistency", "denoiser"]


def parts_of_use(use: str, condition_scale: float, steps: int) -> tuple[Parts, Sampler]:
    """Returns kernel, meaning of the output and training times of a use, and its sampler.

    Args:
        use: ``consistency``, drawn in one step, or ``denoiser``, drawn with Heun's method.
        condition_scale: Factor of the logarithm of the noise level that the network sees.
        steps: Steps of Heun's method.
    """
    if use == "denoiser":
        return (EDM(), EDMPreconditioning(condition_scale=condition_scale), LogNormalTimes()), Heun(steps)
    return (EDM(), consistency_boundary(EDM(), condition_scale=condition_scale), None), Consistency()


def words_of_use(use: str) -> str:
    """Says in what role a network was read."""
    return f"as a {use}{' function' * (use == 'consistency')}"
