"""Inverse problems: noise i becomes an image that agrees with measurement i, by posterior sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from repro.banks import Bank
from repro.data.base import ImageData
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.inverse.operators import Operator
from repro.inverse.operators.filters import Downsample, GaussianBlur
from repro.inverse.operators.masks import CentreMask
from repro.inverse.posterior import PosteriorSampler
from repro.inverse.problem import Problem
from repro.models.base import GenerativeModule
from repro.registry import rebuild, record_of
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.ode import RK45
from repro.tasks.base import Task

__all__ = ["Deblur", "Inpaint", "Inverse", "Residual", "SuperResolution", "restoration_metrics"]


def restoration_metrics(operator: Operator, image_shape: Sequence[int]) -> dict[str, Metric]:
    """PSNR in dB, SSIM, and how far measurements of two sets of images are apart.

    SSIM's Gaussian window has a standard deviation of 1.5 pixels, less for images under 32 pixels.

    Args:
        operator: What is measured.
        image_shape: (C, H, W).
    """
    std = min(1.5, min(image_shape[1:]) / 21)
    return {
        "psnr": PeakSignalNoiseRatio(data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3)),
        "ssim": StructuralSimilarityIndexMeasure(data_range=255.0, sigma=std),
        "residual": Residual(operator),
    }


class Inverse(Task):
    """Base of the inverse tasks: they differ in what is measured unless the user says otherwise."""

    trains: ClassVar[bool] = False
    operator: ClassVar[type[Operator]]

    def num_classes(self, classes: int, start: int | None = None) -> int:
        return 0

    def check(self, module: GenerativeModule) -> None:
        if module.sampler is None:
            raise UserError(f"--task {self.name} steers a sampler; {type(module).__name__} samples in one pass")
        if module.num_classes and not module.takes_no_labels:
            raise UserError(f"--task {self.name} needs a model that samples without labels; this one has classes")

    def settle_sampler(self, module: GenerativeModule) -> None:
        """DPM-Solver of order 3 in 100 evaluations (paper, appendix F) for a model whose own sampler takes no steps."""
        if isinstance(module.sampler, RK45):
            module.use_sampler(DPMSolver(steps=100, order=3))

    def prepare(self, module: GenerativeModule, problem: Problem) -> None:
        """Steers the model's sampler towards the measurements.

        Raises:
            UserError: as :class:`PosteriorSampler`; no data to measure, or data that do not fit the model.
        """
        self.check(module)
        operator, truth = problem.operator or self.operator(), self._truth(module, problem)
        sampler = PosteriorSampler(module.sampler, **vars(problem) | {"operator": operator, "truth": truth})
        if tuple(sampler.truth.image_shape) != tuple(module.image_shape):
            raise UserError(_misfit(sampler.truth.image_shape, module.image_shape))
        sampler.measurements([0])
        module.use_sampler(sampler)

    def _truth(self, module: GenerativeModule, problem: Problem) -> ImageData:
        if problem.truth is None and module.data_record is None:
            raise UserError(f"--task {self.name} needs images to measure; name data: --problem.truth NAME")
        return problem.truth or rebuild(module.data_record)

    def record(self, module: GenerativeModule) -> dict[str, Any]:
        """What two banks of this task must have in common to be compared."""
        steered = self._steered(module)
        kept = {"operator": record_of(steered.operator), "truth": steered.truth.fingerprint()}
        return kept | {"observation": steered.observation, "noise": steered.noise, "held_out": steered.truth.holdout}

    def references(self, module: GenerativeModule, seeds: Sequence[int]) -> dict[str, Bank]:
        """The true images, as a bank to compare with."""
        return {"truth": Bank.from_images(self._steered(module).truths(seeds), seeds)}

    def metrics(self, module: GenerativeModule) -> dict[str, Metric]:
        """See :func:`restoration_metrics`."""
        return restoration_metrics(self._steered(module).operator, module.image_shape)

    def columns(self, module: GenerativeModule, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Truth and measurement as uint8 images, for a grid."""
        steered = self._steered(module)
        seen = steered.operator.picture(steered.measurements(seeds))
        size = module.image_shape[1:]
        seen = torch.nn.functional.interpolate(seen, size=size, mode="nearest")
        return {"truth": steered.truths(seeds), "measured": to_uint8(seen)}

    def _steered(self, module: GenerativeModule) -> PosteriorSampler:
        assert isinstance(module.sampler, PosteriorSampler), "prepare() comes first"
        return module.sampler


def _misfit(truth: Sequence[int], model: Sequence[int]) -> str:
    there, here = ("x".join(map(str, shape)) for shape in (truth, model))
    size = "" if truth[1:] == model[1:] else f" --problem.truth.resize {model[1]}"
    grey = " --problem.truth.grayscale true" if truth[0] > model[0] == 1 else ""
    advice = f"add{size}{grey}" if truth[0] == model[0] or grey else "name other data"
    return f"--problem.truth has images {there}, the model's are {here}; {advice}"


class Inpaint(Inverse):
    """Fills in hidden pixels: the central quarter of the image unless told otherwise (paper, section 4.2)."""

    name = "inpaint"
    operator = CentreMask


class SuperResolution(Inverse):
    """Finds the details of an image of lower resolution, half of it unless told otherwise."""

    name = "super_resolution"
    operator = Downsample


class Deblur(Inverse):
    """Sharpens an image that was blurred, by a Gaussian unless told otherwise."""

    name = "deblur"
    operator = GaussianBlur


class Residual(Metric):
    r"""Root mean square of :math:`A(a) - A(b)` over the images' measurements, in units of [-1, 1].

    Args:
        operator: What is measured.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.add_state("squares", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, a: Tensor, b: Tensor) -> None:
        """Adds uint8 images of two sets, (n, C, H, W) each."""
        apart = self.operator(to_float(a).double()) - self.operator(to_float(b).double())
        self.squares += apart.square().sum()
        self.count += apart.numel()

    def compute(self) -> Tensor:
        """The root mean square so far."""
        return (self.squares / self.count).sqrt()
