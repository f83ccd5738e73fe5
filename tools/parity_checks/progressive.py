"""The progressive distillation of Hramchenko/diffusion_distiller, with an analytic teacher.

That code lets the teacher's second step always lead to the clean image, so its target is ours at scales 1 and 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from parity_checks.fixture import Check, Fixture
from repro.denoisers import Denoiser
from repro.errors import UserError
from repro.kernels import DiscreteVP, Kernel
from repro.parameterizations import V
from repro.samplers.base import Run
from repro.samplers.euler import Euler
from repro.training.halving import two_step_target

__all__ = ["ClippedDDIM", "VTeacher", "progressive_distillation"]

_NUMBER = r"(-?[0-9.]+(?:e-?[0-9]+)?)"


def _numbers(text: str, pattern: str) -> list[float]:
    """The numbers at the marks ``#`` of a pattern in a text; the signs of a sum belong to its numbers."""
    found = re.search(pattern.replace("#", _NUMBER), text.replace(" - ", " -").replace(" + ", " "))
    if found is None:
        raise UserError(f"meta.json says {text!r}, not of the form {pattern!r}")
    return [float(number) for number in found.groups()]


class VTeacher(Denoiser):
    """The analytic teacher: v is a bounded function of the noisy image, in waves over the steps.

    Args:
        kernel: The discrete kernel; the step number of a time is ``N t - 1``.
        factors: The five numbers of its formula.
        scale: Factor of the step number.
        clip: The denoised images are cut to this distance from 0.
    """

    def __init__(self, kernel: DiscreteVP, factors: list[float], scale: float, clip: float) -> None:
        super().__init__()
        self.kernel, self.factors, self.scale, self.clip = kernel, factors, scale, clip
        self.image_shape = (3, 6, 6)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        height, slope, period, straight = self.factors
        tau = (t * self.kernel.steps - 1).round().reshape(-1, 1, 1, 1) * self.scale
        v = height * torch.tanh(slope * x_t) * torch.cos(tau / period) + straight * x_t
        return V().to_x_0(v, x_t, *self.scales(x_t, t)).clamp(-self.clip, self.clip)


class ClippedDDIM(Euler):
    """DDIM with the noise, like the denoised image, cut to a distance from 0."""

    def __init__(self, steps: int, clip: float) -> None:
        super().__init__(steps, spacing="time_uniform")
        self.most = clip

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        x_0 = run.denoise(x_t, t)
        if s is None:
            return x_0, x_0
        eps = ((x_t - run.kernel.alpha(t) * x_0) / run.kernel.sigma(t)).clamp(-self.most, self.most)
        return x_0, run.kernel.alpha(s) * x_0 + run.kernel.sigma(s) * eps


def progressive_distillation(fixture: Fixture) -> Iterator[Check]:
    """Schedules, noisy images, the student's targets and losses, and samples of the teacher, for each N."""
    for steps in fixture.settings["teacher_steps"]:
        yield from _halving(fixture, steps)


def _halving(fixture: Fixture, steps: int) -> Iterator[Check]:
    meta, settings, name = fixture.meta, fixture.settings, f"N{steps}"
    notes = " ".join(meta["notes"])
    wave = _numbers(meta["teacher"], r"= #\*tanh\(# z\)\*cos\(tau/#\) # z")
    scale = _numbers(settings["time_scale"], r"#/N teacher")[0] / steps
    clip, sample_clip = _numbers(notes, r"clipped to \[[^,]*,#\]")[0], _numbers(notes, r"clip value #")[0]
    teacher_kernel, student_kernel = (_kernel(settings["schedule"], count) for count in (steps, steps // 2))
    teacher = VTeacher(teacher_kernel, wave, scale, clip)

    index = fixture.io[f"{name}_t"]
    x_0, eps = (fixture.io[key][: len(index)].double() for key in ("x0", "eps"))
    t, middle, t_student = (index + 2) / steps, (index + 1) / steps, (index // 2 + 1) / (steps // 2)
    t, middle, t_student = t.double(), middle.double(), t_student.double()
    alpha, sigma = teacher.scales(x_0, t)
    x_t = alpha * x_0 + sigma * eps
    target = two_step_target(teacher, x_t, t, middle, (torch.ones_like(alpha), torch.zeros_like(sigma)))
    alpha, sigma = (
        part[:, None, None, None] for part in (student_kernel.alpha(t_student), student_kernel.sigma(t_student))
    )
    v = V().target(target, (x_t - alpha * target) / sigma, alpha, sigma)
    noise = fixture.io["x_T"].double()
    samples = ClippedDDIM(steps, sample_clip).sample(VTeacher(teacher_kernel, wave, scale, sample_clip), noise)
    yield from _tables(fixture, f"{name}_teacher", teacher_kernel)
    yield from _tables(fixture, f"{name}_student", student_kernel)
    given = {"z": x_t, "v_target": v, "x_target": V().to_x_0(v, x_t, alpha, sigma), "ddim_sample": samples}
    slope, offset = _numbers(meta["student"], r"= # z #")
    for gamma in sorted({found[1] for key in fixture.outputs if (found := re.match(rf"{name}_gamma([0-9.]+)_", key))}):
        weight = (1 + alpha / sigma) ** float(gamma)
        given[f"gamma{gamma}_weighted_v_target"] = weight * v
        given[f"gamma{gamma}_loss"] = (weight * (v - slope * x_t - offset)).square().mean()
    yield from fixture.compare_all({f"{name}_{key}": tensor for key, tensor in given.items()})


def _kernel(schedule: str, steps: int) -> DiscreteVP:
    offset, most = _numbers(schedule, r"cosine s=#, betas clipped at #")
    kernel = DiscreteVP("cosine", steps, -math.inf)
    if (offset, most) != (0.008, 0.999):
        part = torch.arange(steps + 1, dtype=torch.float64) / steps
        level = ((part + offset) / (1 + offset) * math.pi / 2).cos() ** 2
        kernel._log_alphas = (level[1:] / level[:-1]).clamp(min=1 - most).log().cumsum(0) / 2
    return kernel


def _tables(fixture: Fixture, name: str, kernel: Kernel) -> Iterator[Check]:
    t = (torch.arange(kernel.steps, dtype=torch.float64) + 1) / kernel.steps
    yield from fixture.compare_all({f"{name}_alpha": kernel.alpha(t), f"{name}_sigma": kernel.sigma(t)})
