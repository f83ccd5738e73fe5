"""Inverse problems: noise i becomes an image that agrees with measurement i, by posterior sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from repro.banks import Bank
from repro.data.base import ImageData
from repro.data.recorded import recorded_data
from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.inverse.operators import Operator
from repro.inverse.operators.filters import Downsample, GaussianBlur
from repro.inverse.operators.masks import CentreMask
from repro.inverse.posterior import PosteriorSampler
from repro.inverse.problem import Problem
from repro.models.base import Model
from repro.records import record_of
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver
from repro.tasks.base import Plan, Task, without_labels

__all__ = ["Deblur", "Inpaint", "Inverse", "InversePlan", "Residual", "SuperResolution", "restoration_metrics"]


def restoration_metrics(operator: Operator, image_shape: Sequence[int]) -> dict[str, Metric]:
    """Returns PSNR in dB, SSIM, and how far measurements of two sets of images are apart.

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


@dataclass(frozen=True)
class InversePlan(Plan):
    """What an inverse task draws: images of a sampler that is steered towards measurements.

    Attributes:
        sampler: The steered sampler, which knows what is measured.
        image_shape: (C, H, W) of the images.
    """

    sampler: PosteriorSampler
    image_shape: tuple[int, int, int] = (1, 1, 1)

    def references(self, seeds: Sequence[int]) -> dict[str, Bank]:
        """Returns the true images, as a bank to compare with."""
        return {"truth": Bank.from_images(self.sampler.truths(seeds), seeds)}

    def metrics(self) -> dict[str, Metric]:
        """See :func:`restoration_metrics`."""
        return restoration_metrics(self.sampler.operator, self.image_shape)

    def columns(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Returns truth and measurement as uint8 images, for a grid."""
        seen = self.sampler.operator.picture(self.sampler.measurements(seeds))
        seen = torch.nn.functional.interpolate(seen, size=self.image_shape[1:], mode="nearest")
        return {"truth": self.sampler.truths(seeds), "measured": to_uint8(seen)}


class Inverse(Task):
    """Base of the inverse tasks: they differ in what is measured unless the user says otherwise."""

    trains: ClassVar[bool] = False
    operator: ClassVar[type[Operator]]

    def num_classes(self, classes: int, start: int | None = None) -> int:
        """Returns 0: the network takes no labels."""
        return 0

    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...] | None:
        """Returns None: nothing is drawn under a label."""
        if classes is not None:
            raise UserError(f"classes are {classes}, but --task {self.name} draws none; leave them out")
        if model.sampler is None:
            raise UserError(f"--task {self.name} steers a sampler; {type(model).__name__} samples in one pass")
        if model.num_classes and not model.takes_no_labels:
            raise UserError(f"--task {self.name} needs a model that samples without labels; this one has classes")
        return None

    def plan(
        self,
        model: Model,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
        classes: str | None = None,
        problem: object | None = None,
    ) -> InversePlan:
        """Settles what is measured and how the sampler is steered towards it.

        A model whose own sampler lets images choose their steps is drawn from with DPM-Solver of order 3 in 100
        evaluations (paper, appendix F), unless a sampler is given.

        Raises:
            UserError: as :class:`PosteriorSampler`; no data to measure, or data that do not fit the model.
        """
        self.classes_of(model, classes)
        if guidance != 1:
            raise without_labels(self.name, guidance)
        assert model.sampler is not None, "classes_of refuses models that need no sampler"
        own = DPMSolver(steps=100, order=3) if model.sampler.adaptive else model.sampler
        problem = problem if isinstance(problem, Problem) else Problem()
        operator, truth = problem.operator or self.operator(), self._truth(model, problem)
        steered = PosteriorSampler(sampler or own, **vars(problem) | {"operator": operator, "truth": truth})
        if tuple(truth.image_shape) != tuple(model.image_shape):
            raise UserError(_misfit(truth.image_shape, model.image_shape))
        model.check_drawing(steered)
        steered.measurements([0])
        record = {
            "operator": record_of(operator),
            "truth": truth.fingerprint(),
            "observation": steered.observation,
            "noise": steered.noise,
            "held_out": truth.holdout,
        }
        return InversePlan(self.name, steered, record=record, trained_for=False, image_shape=model.image_shape)

    def _truth(self, model: Model, problem: Problem) -> ImageData:
        if problem.truth is None and model.data_record is None:
            raise UserError(f"--task {self.name} needs images to measure; name data: --problem.truth NAME")
        return problem.truth or recorded_data(model.data_record, "the checkpoint", "--problem.truth")


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
        """Returns the root mean square so far."""
        return (self.squares / self.count).sqrt()
