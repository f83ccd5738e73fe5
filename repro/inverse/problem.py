"""What is measured of an image, as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from repro.data.base import ImageData
from repro.inverse.operators import Operator
from repro.inverse.posterior import Norm

__all__ = ["Problem"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is measured, and how hard samples are pulled towards it; what is None is settled by task and model.

    Args:
        operator: What is measured; by default the task's.
        truth: Data whose images are measured; by default those that the model was trained on (their held-out part,
            when there is one).
        observation: Number of the one image that is measured for every noise; by default noise i has image i.
        noise: Standard deviation of noise added to the measurements.
        step_size: Size of the pull; see :class:`~repro.inverse.posterior.PosteriorSampler`.
        norm: ``l2`` or ``squared`` distance from the measurements.
        project: Move the last images to the nearest ones with exactly these measurements.
    """

    operator: Operator | None = None
    truth: ImageData | None = None
    observation: int | None = None
    noise: float = 0.0
    step_size: float = 1.0
    norm: Norm = "l2"
    project: bool = False
