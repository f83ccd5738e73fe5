"""Diffusion posterior sampling without randomness: any deterministic sampler, pulled towards measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from repro.data.base import ImageData
from repro.denoisers import Denoiser
from repro.devices import onto
from repro.errors import UserError, check_at_least, check_choice
from repro.images import to_float
from repro.inverse.operators import Operator
from repro.kernels import Kernel
from repro.noise import NoiseStream, draw_noise
from repro.samplers.base import Run, Sampler, Step

__all__ = ["Norm", "PosteriorSampler", "residual_gradient"]

Norm = Literal["l2", "squared"]

_MEASUREMENT_NOISE = 2**31


def residual_gradient(x_t: Tensor, x_0: Tensor, y: Tensor, operator: Operator, norm: Norm = "l2") -> Tensor:
    r"""Gradient in ``x_t`` of each image's distance between measurement and prediction, :math:`\|y - A(\hat x_0)\|`.

    Args:
        x_t: Noisy images (B, C, H, W) that ``x_0`` was computed from with gradients.
        x_0: The denoised images.
        y: Measurements.
        operator: What was measured.
        norm: ``l2`` for the norm of each image's residual, ``squared`` for half its square.

    Returns:
        Shape (B, C, H, W); zero for an image whose prediction meets its measurement.

    Source: Chung et al. 2023, arXiv:2209.14687, algorithm 1 (with the norm, as their code has it).
    """
    squares = (y - operator(x_0)).flatten(1).square().sum(1)
    if norm == "squared":
        distance = squares / 2
    else:
        reached = squares == 0
        distance = torch.where(reached, 0.0, torch.where(reached, 1.0, squares).sqrt())
    return torch.autograd.grad(distance.sum(), x_t)[0]


class PosteriorSampler(Sampler):
    r"""Steps of a deterministic sampler, each followed by a pull towards the measurements.

    .. math:: x_s \leftarrow x_s - \xi\, \nabla_{x_t} \| y - A(\hat x_0(x_t)) \|

    The gradient goes through the first denoiser evaluation of the step, so there are as many evaluations as in the
    sampler alone (DPM-Solver of order 3 in 100 evaluations: 33 steps of order 3 and one of order 1). This is the
    algorithm of Chung et al. with every random term removed (paper, appendix F).

    Args:
        sampler: A deterministic sampler of fixed steps.
        operator: What is measured.
        truth: Data whose images are measured: noise i belongs to image i, counted round the set; the held-out images
            where the data hold some out.
        observation: Number of the one image that is measured for every noise; by default each noise has its own.
        noise: Standard deviation of noise added to the measurements, at least 0; numbered by the image.
        step_size: :math:`\xi`, at least 0.
        norm: ``l2`` or ``squared``; see :func:`residual_gradient`.
        project: Whether the last images are moved to the nearest ones with exactly the measurements; linear
            operators only.

    Raises:
        UserError: a stochastic sampler, one whose images choose their own steps, a negative step size or noise, an
            observation that is not there, or ``project`` with an operator that is not linear.
    """

    def __init__(
        self,
        sampler: Sampler,
        operator: Operator,
        truth: ImageData,
        observation: int | None = None,
        noise: float = 0.0,
        step_size: float = 1.0,
        norm: Norm = "l2",
        project: bool = False,
    ) -> None:
        check_choice("norm", norm, Norm)
        if sampler.stochastic:
            raise UserError(f"{type(sampler).__name__} draws noise; posterior sampling takes a deterministic sampler")
        if sampler.adaptive:
            raise UserError(
                f"{type(sampler).__name__} lets every image choose its own steps, but the pull is one a step; take a "
                "sampler of fixed steps, such as --sampler DPMSolver --sampler.steps 100"
            )
        check_at_least(0, step_size=step_size, noise=noise, observation=observation)
        if project and not operator.linear:
            raise UserError(f"project needs a linear operator; {type(operator).__name__} is not linear")
        self.sampler, self.operator, self.truth = sampler, operator, truth
        self.observation, self.noise = observation, noise
        self.step_size, self.norm, self.project = step_size, norm, project

    @property
    def evaluations(self) -> int | None:  # type: ignore[override]
        """Denoiser calls of one :meth:`sample`: those of the sampler alone."""
        return self.sampler.evaluations

    def check_start(self, kernel: Kernel) -> None:
        """As the sampler that is steered."""
        self.sampler.check_start(kernel)

    def truths(self, seeds: Sequence[int]) -> Tensor:
        """Returns the images that are measured for some seeds, uint8 (n, C, H, W)."""
        images = self.truth.held_out()[0] if self.truth.holdout else self.truth.images()
        if self.observation is not None and self.observation >= len(images):
            raise UserError(
                f"observation is {self.observation}; {type(self.truth).__name__} has {len(images)} images, from 0 to "
                f"{len(images) - 1}"
            )
        return images[self._numbers(seeds, len(images))]

    def measurements(self, seeds: Sequence[int]) -> Tensor:
        """Returns what is measured for some seeds, float64 (n, ...)."""
        y = self.operator(to_float(self.truths(seeds)).double())
        if self.noise:
            numbers = [_MEASUREMENT_NOISE + number for number in self._numbers(seeds, _MEASUREMENT_NOISE)]
            y = y + self.noise * draw_noise(numbers, y.shape[1:])
        return y

    def _numbers(self, seeds: Sequence[int], count: int) -> list[int]:
        return [(seed if self.observation is None else self.observation) % count for seed in seeds]

    def sample(self, denoiser: Denoiser, noise: NoiseStream | Tensor, labels: Tensor | None = None) -> Tensor:
        """Draws images from numbered noise, as :meth:`Sampler.sample`; works in inference mode too."""
        with torch.inference_mode(False):
            return super().sample(denoiser, noise, None if labels is None else labels.clone())

    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """The sampler's steps, pulled; then, with ``project``, a last one without an evaluation."""
        if run.stream is None:
            raise UserError("posterior sampling needs numbered noise; give a NoiseStream of seeds")
        y = onto(x.device, self.measurements(run.stream.seeds), x.dtype)
        watched = _Differentiated(run.denoiser)
        for step in self.sampler.walk(Run(watched, run.labels, run.stream, self.sampler.clip), x):
            with torch.enable_grad():
                gradient = residual_gradient(*watched.take(), y, self.operator, self.norm)
            step.x_s = step.x_s - self.step_size * gradient
            yield step
        if self.project:
            yield Step(step.t, None, step.x_s, step.x_0, self.operator.project(step.x_s, y))


class _Differentiated(Denoiser):
    """A denoiser whose first evaluation of a step keeps its graph until it is taken."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.kernel = denoiser, denoiser.kernel
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes
        self.kept: tuple[Tensor, Tensor] | None = None

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.kept is not None:
            return self.denoiser.denoise(x_t, t, labels)
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            self.kept = leaf, self.denoiser.denoise(leaf, t, labels)
        return self.kept[1].detach()

    def take(self) -> tuple[Tensor, Tensor]:
        """The first state since the last call, and its denoised image with the graph between them."""
        assert self.kept is not None
        kept, self.kept = self.kept, None
        return kept
