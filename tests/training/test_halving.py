"""Halving DDIM: nested grids, the closed form on Gaussian data, and students that answer the target exactly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from repro import registry
from repro.denoisers import Denoiser, EmpiricalDenoiser, GaussianDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, Kernel
from repro.noise import draw_noise
from repro.training.halving import Halving, Levels, ddim_step, one_step_image, two_step_target

KERNELS = ["VP", "DiscreteVP", "SubVP", "VE", "EDM", "Cosine", "Flow"]
SPACINGS = ["time_uniform", "time_quadratic", "edm", "log_snr"]


class Perfect(Denoiser):
    """The student of a stage that answers its target exactly."""

    def __init__(self, teacher: Denoiser, halving: Halving, stage: int) -> None:
        super().__init__()
        self.teacher, self.kernel, self.image_shape = teacher, teacher.kernel, teacher.image_shape
        self.levels = Levels.of(halving.sampler(stage, self.kernel), self.kernel)
        self.middles = halving.sampler(stage - 1, self.kernel).times(self.kernel)[1::2]

    def denoise(self, x_t, t, labels=None):
        level = (self.levels.times - t.reshape(-1, 1)).abs().argmin(1).expand(len(x_t))
        return two_step_target(self.teacher, x_t, t, self.middles[level], self.levels.scales(level + 1), labels)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("final_denoise", [True, False])
def test_each_grid_is_every_second_level_of_the_one_before(name, spacing, final_denoise):
    kernel = registry.build("kernels", name)
    halving = Halving(24, 3, spacing, None, final_denoise)
    assert [halving.steps(stage) for stage in range(-1, halving.stages)] == [48, 24, 12, 6, 3]
    for stage in range(halving.stages):
        finer, coarser = (Levels.of(halving.sampler(s, kernel), kernel) for s in (stage - 1, stage))
        torch.testing.assert_close(finer.times[::2], coarser.times, rtol=1e-12, atol=0)
        torch.testing.assert_close(finer.sigma[::2], coarser.sigma, rtol=1e-9, atol=0)
        assert len(coarser.sigma) == halving.steps(stage) + 1
        assert coarser.times[0] == kernel.t_max


def test_uniform_steps_are_equally_long_down_to_the_clean_image():
    halving = Halving(64, 1)
    for stage in range(halving.stages):
        steps = halving.steps(stage)
        times = halving.sampler(stage, VP()).times(VP())
        torch.testing.assert_close(times, torch.arange(steps, 0, -1, dtype=torch.float64) / steps, rtol=1e-12, atol=0)


def test_spacing_follows_the_kernel_unless_given():
    found = {name: Halving(8, 1).sampler(0, registry.build("kernels", name)).spacing for name in KERNELS}
    assert found == dict.fromkeys(KERNELS, "time_uniform") | {"EDM": "edm"}


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (64, 3, "end_steps 3 is not reached by halving start_steps 64; halving reaches 64, 32, 16, 8, 4, 2, 1"),
        (12, 1, "end_steps 1 is not reached by halving start_steps 12; halving reaches 12, 6, 3"),
        (4, 8, "end_steps 8 is not reached"),
        (4, 0, "end_steps 0 is not reached"),
        (0, 0, "start_steps is 0"),
    ],
)
def test_steps_that_halving_does_not_reach(start, end, message):
    with pytest.raises(UserError, match=message):
        Halving(start, end)


class Ending(Kernel):
    """A kernel whose signal vanishes at its largest time."""

    t_min, t_max = 1e-3, 1.0

    def log_alpha(self, t):
        return torch.log1p(-t)

    def sigma(self, t):
        return t


def test_a_level_without_signal_is_refused():
    with pytest.raises(UserError, match="Ending has alpha 0 and sigma 1 at time 1"):
        Levels.of(Halving(4, 1).sampler(0, Ending()), Ending())


def test_one_step_image_undoes_a_ddim_step():
    x_t, x_0 = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)
    at_t, at_s = (tuple(torch.rand(2, 5, 1, 1, 1, dtype=torch.float64) + shift) for shift in (1.0, 0.1))
    torch.testing.assert_close(one_step_image(x_t, ddim_step(x_t, x_0, at_t, at_s), at_t, at_s), x_0)


def gain(kernel: Kernel, t: float, std: float) -> float:
    """How much of a deviation from the mean the posterior mean of Gaussian data keeps."""
    alpha, sigma = scales(kernel, t)
    return alpha * std**2 / ((alpha * std) ** 2 + sigma**2)


def scales(kernel: Kernel, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return kernel.alpha(time).item(), kernel.sigma(time).item()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_target_is_the_closed_form_on_gaussian_data(name, steps):
    """Each DDIM step multiplies the deviation from the mean by a number; so does the target."""
    kernel, mean, std = registry.build("kernels", name), 0.3, 0.5
    halving = Halving(steps, steps, "edm")
    fine, levels = (Levels.of(halving.sampler(stage, kernel), kernel) for stage in (-1, 0))
    for level in range(steps):
        t, middle = fine.times[2 * level].item(), fine.times[2 * level + 1].item()
        (a_t, s_t), (a_m, s_m) = scales(kernel, t), scales(kernel, middle)
        a_s, s_s = fine.alpha[2 * level + 2].item(), fine.sigma[2 * level + 2].item()
        first = a_m * gain(kernel, t, std) + s_m * (1 - a_t * gain(kernel, t, std)) / s_t
        second = a_s * gain(kernel, middle, std) + s_s * (1 - a_m * gain(kernel, middle, std)) / s_m
        right = (first * second - s_s / s_t) / (a_s - s_s * a_t / s_t)
        x_t = mean * a_t + torch.randn(3, 1, 4, 4, dtype=torch.float64) * math.hypot(a_t * std, s_t)
        number = torch.full((3,), level)
        times = (torch.full((3,), each, dtype=torch.float64) for each in (t, middle))
        teacher = GaussianDenoiser(kernel, (1, 4, 4), mean, std)
        found = two_step_target(teacher, x_t, *times, levels.scales(number + 1))
        torch.testing.assert_close(found, mean + right * (x_t - a_t * mean), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", KERNELS)
def test_a_perfect_student_draws_in_one_step_what_its_teacher_draws_in_two(name):
    kernel = registry.build("kernels", name)
    noise = draw_noise(range(6), (1, 4, 4))
    images = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for teacher in (GaussianDenoiser(kernel, (1, 4, 4), 0.3, 0.5), EmpiricalDenoiser(images, kernel)):
        halving = Halving(4, 1, "edm")
        right, student = halving.sampler(-1, kernel).sample(teacher, noise), teacher
        for stage in range(halving.stages):
            student = Perfect(student, halving, stage)
            drawn = halving.sampler(stage, kernel).sample(student, noise)
            torch.testing.assert_close(drawn, right, rtol=1e-9, atol=1e-9)


def test_a_perfect_student_keeps_the_levels_of_a_walk_that_ends_above_the_data():
    kernel, noise = EDM(), draw_noise(range(6), (1, 4, 4))
    teacher, halving = GaussianDenoiser(kernel, (1, 4, 4)), Halving(4, 2, "edm", final_denoise=False)
    right = halving.sampler(-1, kernel).sample(teacher, noise)
    assert halving.sampler(1, kernel).times(kernel)[-1] == kernel.t_min
    student = Perfect(Perfect(teacher, halving, 0), halving, 1)
    torch.testing.assert_close(halving.sampler(1, kernel).sample(student, noise), right, rtol=1e-9, atol=1e-9)


def test_targets_depend_on_ratios_alone():
    """Under VP and VE, which differ in how they scale, one ratio gives one target."""
    ratios, found = torch.tensor([9.0, 3.0, 0.5], dtype=torch.float64), []
    y = torch.randn(4, 1, 3, 3, dtype=torch.float64) * 9
    for kernel in (VP(), VE()):
        t, middle, s = kernel.time_of_ratio(ratios)
        at_s = (kernel.alpha(s), kernel.sigma(s))
        teacher = GaussianDenoiser(kernel, (1, 3, 3), 0.3, 0.5)
        found.append(two_step_target(teacher, kernel.alpha(t) * y, t, middle, at_s))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_targets_losses_and_samples_agree_with_recorded_ones(monkeypatch):
    """Recorded from Hramchenko/diffusion_distiller, whose target is ours at a clean end of the second step."""
    tests = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(tests.parent / "tools"))
    from parity_checks.checks import run_fixture

    result = run_fixture(tests / "oracles" / "progressive_distillation")
    assert result.verdict == "pass", result
    assert len(result.checks) == 24
    assert max(check.part for check in result.checks) < 1e-6
