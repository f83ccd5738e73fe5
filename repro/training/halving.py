r"""Halving the steps of DDIM: nested grids of noise levels, and what a student must answer to do two steps in one.

A DDIM step from :math:`x_t` to time s with denoised image :math:`\hat x_0` is

.. math:: x_s = \alpha_s \hat x_0 + \frac{\sigma_s}{\sigma_t} (x_t - \alpha_t \hat x_0)

The teacher takes two of them, over a time between. The student's target is the image that leads to the same place in
one. Source: Salimans & Ho 2022, arXiv:2202.00512, algorithm 2 and appendix G.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.devices import onto
from repro.errors import UserError
from repro.kernels import Kernel
from repro.samplers.euler import Euler
from repro.samplers.steps import FixedSteps, Spacing

__all__ = ["Halving", "Levels", "Scales", "ddim_step", "one_step_image", "two_step_target"]

Scales = tuple[Tensor, Tensor]


def ddim_step(x_t: Tensor, x_0: Tensor, at_t: Scales, at_s: Scales) -> Tensor:
    r"""Takes one DDIM step: the state at the lower noise level, shape of ``x_t``.

    Args:
        x_t: State before it, shape (B, C, H, W).
        x_0: Denoised image at ``x_t``.
        at_t: :math:`\alpha_t, \sigma_t`, which multiply images.
        at_s: :math:`\alpha_s, \sigma_s`; 1 and 0 for a step to the clean image.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = at_t, at_s
    return alpha_s * x_0 + sigma_s / sigma_t * (x_t - alpha_t * x_0)


def one_step_image(x_t: Tensor, x_s: Tensor, at_t: Scales, at_s: Scales) -> Tensor:
    r"""The denoised image with which one DDIM step leads from ``x_t`` to ``x_s``: the inverse of :func:`ddim_step`.

    .. math:: \tilde x_0 = \frac{x_s - (\sigma_s / \sigma_t)\, x_t}{\alpha_s - (\sigma_s / \sigma_t)\, \alpha_t}
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = at_t, at_s
    shrink = sigma_s / sigma_t
    return (x_s - shrink * x_t) / (alpha_s - shrink * alpha_t)


def two_step_target(
    teacher: Denoiser, x_t: Tensor, t: Tensor, middle: Tensor, at_s: Scales, labels: Tensor | None = None
) -> Tensor:
    """Returns what a student must answer at ``x_t`` to reach in one DDIM step where its teacher gets in two.

    Args:
        teacher: The teacher.
        x_t: Noisy images, shape (B, C, H, W); float64 keeps short steps exact.
        t: Their times, shape () or (B,).
        middle: Times after the teacher's first step.
        at_s: Scales after its second, 1 and 0 for the clean image.
        labels: Class numbers (B,), or None.
    """
    at_t, at_middle = teacher.scales(x_t, t), teacher.scales(x_t, middle)
    x_middle = ddim_step(x_t, teacher.denoise(x_t, t, labels), at_t, at_middle)
    x_s = ddim_step(x_middle, teacher.denoise(x_middle, middle, labels), at_middle, at_s)
    return one_step_image(x_t, x_s, at_t, at_s)


@dataclass(frozen=True)
class Levels:
    """The noise levels that a sampler visits under a kernel, from noise to data.

    Attributes:
        times: Times of the levels, falling, float64 (n,).
        alpha: Scales of the signal; where the sampler's last step leads to the clean image, that is one level more.
        sigma: Standard deviations of the noise.
    """

    times: Tensor
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, sampler: FixedSteps, kernel: Kernel) -> Levels:
        """Makes the levels of a sampler's own grid under a kernel.

        Raises:
            UserError: a level without signal or without noise, where a DDIM step has no meaning.
        """
        times = sampler.times(kernel)
        alpha, sigma = kernel.alpha(times), kernel.sigma(times)
        for t, signal, noise in zip(times.tolist(), alpha.tolist(), sigma.tolist(), strict=True):
            if not (0 < signal < float("inf") and 0 < noise < float("inf")):
                raise UserError(
                    f"{type(kernel).__name__} has alpha {signal:g} and sigma {noise:g} at time {t:g}; DDIM steps need "
                    "both above 0 on every level: give a t_end inside the kernel's times, or a kernel that ends earlier"
                )
        if sampler.final_denoise:
            alpha, sigma = torch.cat([alpha, alpha.new_ones(1)]), torch.cat([sigma, sigma.new_zeros(1)])
        return cls(times, alpha, sigma)

    def to(self, device: torch.device) -> Levels:
        """Moves the levels to a device."""
        return Levels(*(onto(device, getattr(self, field.name)) for field in fields(self)))

    def scales(self, index: Tensor) -> Scales:
        """Computes scales of the given levels, (B,) numbers, shaped to multiply images."""
        return self.alpha[index][:, None, None, None], self.sigma[index][:, None, None, None]


@dataclass(frozen=True)
class Halving:
    """A row of students, each with half the steps of the one before, on nested grids of noise levels.

    The first student's teacher takes ``2 * start_steps`` DDIM steps. Every student's grid is every second level of its
    teacher's, so that one step of the student spans two of the teacher.

    Args:
        start_steps: Steps of the first student.
        end_steps: Steps of the last one: ``start_steps`` halved any number of times.
        spacing: Of the first teacher's grid, as for the samplers; the students' grids have the same. By default
            ``time_uniform``, or ``edm`` under kernels whose time runs beyond 1.
        t_end: Smallest time of the first teacher's grid. By default ``time_uniform`` steps are equally long down to
            time 0, and the others end at the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image.

    Raises:
        UserError: no step at all, or ``end_steps`` that are not reached.

    Example:
        >>> from repro.kernels import VP
        >>> halving = Halving(start_steps=4, end_steps=1)
        >>> [halving.sampler(stage, VP()).times(VP()).round(decimals=4).tolist() for stage in range(halving.stages)]
        [[1.0, 0.75, 0.5, 0.25], [1.0, 0.5], [1.0]]
    """

    start_steps: int
    end_steps: int
    spacing: Spacing | None = None
    t_end: float | None = None
    final_denoise: bool = True

    def __post_init__(self) -> None:
        if self.start_steps < 1:
            raise UserError(f"start_steps is {self.start_steps}; give at least 1, the steps of the first student")
        reached = [self.start_steps]
        while reached[-1] % 2 == 0:
            reached.append(reached[-1] // 2)
        if self.end_steps not in reached:
            raise UserError(
                f"end_steps {self.end_steps} is not reached by halving start_steps {self.start_steps}; "
                f"halving reaches {', '.join(map(str, reached))}"
            )

    @property
    def stages(self) -> int:
        """Number of students."""
        return (self.start_steps // self.end_steps).bit_length()

    def steps(self, stage: int) -> int:
        """Computes the DDIM steps of the student of a stage, counted from 0; stage -1 is the first teacher."""
        return (2 * self.start_steps) >> (stage + 1)

    def sampler(self, stage: int, kernel: Kernel) -> Euler:
        """Builds DDIM under a kernel with the steps of the student of a stage; stage -1 is the first teacher.

        Raises:
            UserError: an unknown spacing, or ``t_end`` outside the kernel's times.
        """
        steps, t_end = self.steps(stage), self.t_end
        spacing = self.spacing or ("edm" if kernel.t_max > 1 else "time_uniform")
        if t_end is None and spacing == "time_uniform" and self.final_denoise:
            t_end = max(kernel.t_max / (2 * self.start_steps), kernel.t_min)
        if self.final_denoise:
            finest = Euler(2 * self.start_steps, spacing, t_end)
            t_end = finest.times(kernel)[(steps - 1) << (stage + 1)].item() if steps > 1 else None
        return Euler(steps, spacing, t_end, self.final_denoise)
