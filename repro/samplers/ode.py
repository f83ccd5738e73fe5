"""An adaptive Runge-Kutta sampler."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from repro.errors import UserError
from repro.samplers.adaptive import attempts, power, put, rms
from repro.samplers.base import Run, Sampler, Step, noised
from repro.samplers.steps import end_time, noise_in

__all__ = ["RK45"]

# Dormand and Prince 1980: row i holds the weights of the slopes before stage i, the last row is the step of order 5.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
# The step of order 5 less the one of order 4.
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# Step sizes follow Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.4.
_SAFETY, _SHRINK, _GROW, _ORDER = 0.9, 0.2, 10.0, 5


class RK45(Sampler):
    r"""The probability-flow equation by the adaptive Runge-Kutta pair of Dormand and Prince, orders 5 and 4.

    It is solved on the circle, where every kernel gives one and the same smooth equation of unit scale: with
    :math:`\tan\varphi = \sigma_t / \alpha_t` and :math:`z = x_t / \sqrt{\alpha_t^2 + \sigma_t^2}`,

    .. math:: \frac{dz}{d\varphi} = \cos\varphi\, \hat\epsilon - \sin\varphi\, \hat x_0

    Every image takes its own steps: one is accepted when the root mean square of its error over the pixels, against
    ``atol + rtol * |z|``, is at most 1. So an image is the same whatever batch it is drawn in.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance, for images of unit scale.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether a last evaluation leads from ``t_end`` to the clean image; score_sde's ODE sampler,
            whose tolerances these are, does not by default.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: tolerances not above 0; when sampling, a denoiser that is not smooth enough to arrive.

    Source: Song et al. 2021, arXiv:2011.13456, appendix D.1 and D.4; Dormand and Prince 1980, J. Comput. Appl. Math. 6.
    """

    adaptive = True

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        t_end: float | None = None,
        final_denoise: bool = False,
        clip: bool = False,
    ) -> None:
        if not (rtol > 0 and atol > 0):
            raise UserError(f"rtol and atol must be above 0; got {rtol:g} and {atol:g}")
        self.rtol, self.atol, self.t_end, self.final_denoise, self.clip = rtol, atol, t_end, final_denoise, clip

    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps from the kernel's ``t_max`` to the end, then, with ``final_denoise``, to the clean image."""
        kernel = run.kernel
        self.evaluations = 0
        step: Step | None = None
        for step in self._flow(run, x, kernel.t_max, end_time(kernel, self.t_end)):
            yield step
        if self.final_denoise and step is not None and step.s is not None:
            self.evaluations += 1
            x_0 = run.denoise(step.x_s, step.s)
            yield Step(step.s.flatten(), None, step.x_s, x_0, x_0)

    def walk_back(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps from the end to the kernel's ``t_max``."""
        end = end_time(run.kernel, self.t_end)
        self.evaluations = 0
        x = noised(run, x, torch.tensor(end, dtype=torch.float64)) if self.final_denoise else x
        yield from self._flow(run, x, end, run.kernel.t_max)

    def _flow(self, run: Run, x: Tensor, start: float, stop: float) -> Iterator[Step]:
        """Steps from one time to another, either way."""
        kernel, way = run.kernel, 1 if start > stop else -1
        t, last = (torch.full((len(x), 1, 1, 1), end, dtype=torch.float64, device=x.device) for end in (start, stop))
        angle, end = kernel.ratio(t).atan(), kernel.ratio(last).atan()
        x_0, slope = self._slope(run, angle, z := x / _scale(run, t), t)
        size = self._first_size(run, angle, z, slope, end, way)
        for _ in attempts("RK45"):
            rows = (way * (angle - end) > 0).flatten().nonzero().squeeze(1)
            if not len(rows):
                break
            at, step, remaining = angle[rows], size[rows], way * (angle - end)[rows]
            ahead = torch.where(step < remaining, at - way * step, end[rows])
            new_z, new_x_0, new_slope, error = self._try(run.of_rows(rows), at, ahead, z[rows], slope[rows])
            accepted = ~(error > 1)
            factor = (_SAFETY * power(error, -1 / _ORDER)).clamp(_SHRINK, _GROW)
            size = put(size, rows, step * torch.where(accepted, factor, factor.clamp(max=1)))
            kept = accepted.flatten().nonzero().squeeze(1)
            moved = rows[kept]
            angle, z = put(angle, moved, ahead[kept]), put(z, moved, new_z[kept])
            slope = put(slope, moved, new_slope[kept])
            s = put(t, moved, torch.where(angle == end, last, kernel.time_of_ratio(angle.tan()))[moved])
            x_s = put(x, moved, z[moved] * _scale(run, s[moved]))
            yield (taken := Step(t.flatten(), s.flatten(), x, x_0, x_s))
            t, x, x_0 = s, taken.x_s, put(x_0, moved, new_x_0[kept])
            if x is not x_s:  # steered from outside: the slope that was kept is not that of this image
                x_0, slope = self._slope(run, angle, z := x / _scale(run, t), t)

    def _slope(self, run: Run, angle: Tensor, z: Tensor, t: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The denoised image, and dz / d(angle)."""
        t = run.kernel.time_of_ratio(angle.tan()) if t is None else t
        x_t = z * _scale(run, t)
        x_0 = run.denoise(x_t, t)
        self.evaluations = (self.evaluations or 0) + 1
        return x_0, angle.cos() * noise_in(run.kernel, x_t, x_0, t) - angle.sin() * x_0

    def _try(self, run: Run, at: Tensor, ahead: Tensor, z: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
        """A step of order 5 from one angle to another: its end, x_0 and slope there, and its error in tolerances."""
        h, slopes = ahead - at, [slope]
        for node, weights in zip(_NODES, _STAGES, strict=True):
            reached = z + h * _sum(weights, slopes)
            x_0, slope = self._slope(run, at + node * h, reached)
            slopes.append(slope)
        allowed = self.atol + self.rtol * torch.maximum(z.abs(), reached.abs())
        return reached, x_0, slope, rms(h * _sum(_ERROR, slopes) / allowed).nan_to_num(0.0, 0.0)

    def _first_size(self, run: Run, angle: Tensor, z: Tensor, slope: Tensor, end: Tensor, way: int) -> Tensor:
        """A step whose error is about a hundredth of what is allowed, from the slopes at two points."""
        allowed = self.atol + self.rtol * z.abs()
        near, steep = rms(z / allowed), rms(slope / allowed)
        tiny = torch.minimum(
            torch.where((near > 1e-5) & (steep > 1e-5), 0.01 * near / steep, 1e-6), way * (angle - end)
        )
        _, further = self._slope(run, angle - way * tiny, z - way * tiny * slope)
        bend = torch.maximum(rms((further - slope) / allowed) / tiny, steep)
        guess = torch.where(bend > 1e-15, power(0.01 / bend, 1 / _ORDER), tiny * 1e3)
        return torch.minimum(100 * tiny, guess).nan_to_num(1.0, 1.0)


def _scale(run: Run, t: Tensor) -> Tensor:
    return (run.kernel.alpha(t).square() + run.kernel.sigma(t).square()).sqrt()


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    *_, total = accumulate(weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight)
    return total
