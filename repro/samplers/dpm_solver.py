r"""DPM-Solver and DPM-Solver++: exponential integrators in the half log signal-to-noise ratio.

One update serves all of them. Between times s and t let :math:`h = \lambda_t - \lambda_s`. Algorithm ``dpmsolver``
expands the noise m around s, with :math:`z = h` and :math:`(a, b) = (\alpha, \sigma)`; ``dpmsolver++`` expands the
denoised image m, with :math:`z = -h` and :math:`(a, b) = (\sigma, \alpha)`:

.. math:: x_t = \frac{a_t}{a_s} x_s - b_t \big( \varphi_1 m_s + \varphi_2 m'_s + \varphi_3 m''_s \big), \qquad
          \varphi_1 = e^z - 1, \quad \varphi_2 = \frac{\varphi_1}{z} - 1, \quad
          \varphi_3 = \frac{\varphi_2}{z} - \frac12

where :math:`m'` and :math:`m''` are derivatives in units of the step, estimated from evaluations inside it
(singlestep) or before it (multistep). Everything holds for any kernel, since it is all in alpha, sigma and lambda.

Source: Lu et al. 2022, arXiv:2206.00927, algorithms 1 to 3 and appendix B; arXiv:2211.01095, algorithms 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repro.errors import UserError, check_choice
from repro.kernels import Kernel
from repro.samplers.adaptive import attempts, power, put, rms
from repro.samplers.base import Run, Sampler, Step, noised
from repro.samplers.steps import Spacing, check_steps, end_time, noise_in, time_grid

__all__ = ["DPMSolver"]

Method = Literal["singlestep", "multistep", "singlestep_fixed", "adaptive"]
Algorithm = Literal["dpmsolver", "dpmsolver++"]
SolverType = Literal["dpmsolver", "taylor"]

_FIRST_STEP, _SAFETY, _TIME_TOLERANCE = 0.05, 0.9, 1e-5
_LOWER_ORDER_BELOW = 10


class DPMSolver(Sampler):
    """DPM-Solver and DPM-Solver++ of orders 1 to 3, as their authors' code runs them.

    * ``singlestep``: ``steps`` evaluations are divided into steps of the full order, with lower orders at the end
      where they do not divide (20 of order 3: six of order 3, then one of order 2).
    * ``multistep``: one evaluation a step, earlier ones kept; the first steps, and with ``lower_order_final`` the last
      steps of walks under ten steps, have lower orders. Order 3 takes half the second derivative, as the authors' code
      does; measured, it is of order 2, with a smaller error than order 2.
    * ``singlestep_fixed``: as many steps of the full order as fit into ``steps`` evaluations.
    * ``adaptive``: every image has step sizes of its own, such that orders ``order - 1`` and ``order`` agree within
      ``atol`` and ``rtol``; an image is the same whatever batch it is drawn in. (The authors' code takes the steps of
      the worst image for the whole batch.) ``steps`` and ``spacing`` do not matter.

    Args:
        steps: Number of evaluations, with ``final_denoise`` the last of them for the clean image.
        order: 1, 2 or 3.
        method: See above.
        algorithm: ``dpmsolver`` expands the noise, ``dpmsolver++`` the denoised image.
        solver_type: How order 2 (and singlestep order 3) uses derivatives: ``dpmsolver`` or ``taylor``.
        spacing: ``log_snr``, ``time_uniform``, ``time_quadratic`` or ``edm``; also of the times inside a step.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether a last evaluation leads from ``t_end`` to the clean image; the authors' code does not.
        lower_order_final: Lower orders at the end of multistep walks under ten steps, for stability.
        rho: Power of the ``edm`` spacing.
        rtol: Relative tolerance of ``adaptive``.
        atol: Absolute tolerance of ``adaptive``.
        clip: Whether every denoised image is cut to [-1, 1].

    Raises:
        UserError: an unknown method, algorithm, type or spacing, an order other than 1 to 3 (2 or 3 for
            ``adaptive``), fewer steps than the method needs, or tolerances not above 0; when sampling ``adaptive``, a
            denoiser that is not smooth enough to arrive.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import VP
        >>> from repro.noise import NoiseStream
        >>> denoiser, solver = GaussianDenoiser(VP()), DPMSolver(steps=100, order=3)
        >>> len(list(solver.trajectory(denoiser, NoiseStream([0])))), solver.evaluations
        (34, 100)
    """

    # Largest factor between two adaptive steps. Near the starting noise hardly anything changes and an error is mostly
    # the network's rounding; without a limit, as in the authors' code, the next step would be a matter of chance.
    growth: ClassVar[float] = 5.0

    def __init__(
        self,
        steps: int = 20,
        order: int = 3,
        method: Method = "singlestep",
        algorithm: Algorithm = "dpmsolver",
        solver_type: SolverType = "dpmsolver",
        spacing: Spacing = "log_snr",
        t_end: float | None = None,
        final_denoise: bool = False,
        lower_order_final: bool = True,
        rho: float = 7.0,
        rtol: float = 0.05,
        atol: float = 0.0078,
        clip: bool = False,
    ) -> None:
        check_choice("method", method, Method)
        check_choice("algorithm", algorithm, Algorithm)
        check_choice("solver_type", solver_type, SolverType)
        check_choice("spacing", spacing, Spacing)
        orders = (2, 3) if method == "adaptive" else (1, 2, 3)
        if order not in orders:
            raise UserError(f"order is {order}; DPMSolver {method} has orders {', '.join(map(str, orders))}")
        if method != "adaptive":
            least = 1 if method == "singlestep" else order
            check_steps(f"DPMSolver {method} of order {order}", steps, least + final_denoise)
        if not (rho > 0 and rtol > 0 and atol > 0):
            raise UserError(f"rho, rtol and atol must be above 0; got {rho:g}, {rtol:g} and {atol:g}")
        self.steps, self.order, self.method = steps, order, method
        self.algorithm, self.solver_type, self.lower_order_final = algorithm, solver_type, lower_order_final
        self.spacing, self.t_end, self.final_denoise, self.rho = spacing, t_end, final_denoise, rho
        self.rtol, self.atol, self.clip = rtol, atol, clip
        if method != "adaptive":
            self.evaluations = final_denoise + (sum(self.orders()) if "single" in method else len(self.orders()))

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        """Whether every image chooses the sizes of its own steps."""
        return self.method == "adaptive"

    def orders(self) -> list[int]:
        """Returns the order of every step, in turn, without the final denoising."""
        budget, order = self.steps - self.final_denoise, self.order
        if self.method == "multistep":
            rising = [min(order, i + 1) for i in range(budget)]
            if self.lower_order_final and budget < _LOWER_ORDER_BELOW:
                return [min(rise, budget - i) if i >= order - 1 else rise for i, rise in enumerate(rising)]
            return rising
        whole, rest = divmod(budget, order)
        if self.method == "singlestep_fixed" or (rest == 0 and order < 3):
            return [order] * whole
        if rest == 0:
            return [order] * (whole - 1) + [2, 1]
        return [order] * whole + [rest]

    def times(self, kernel: Kernel) -> Tensor:
        """Returns the times between steps, falling, float64 on the CPU."""
        orders, end = self.orders(), end_time(kernel, self.t_end)
        if self.method == "singlestep" and self.spacing != "log_snr":
            fine = time_grid(kernel, self.spacing, sum(orders), kernel.t_max, end, self.rho)
            return fine[list(accumulate(orders, initial=0))]
        return time_grid(kernel, self.spacing, len(orders), kernel.t_max, end, self.rho)

    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps by the chosen method, then, with ``final_denoise``, to the clean image."""
        walks = {"multistep": self._multistep, "adaptive": self._adaptive}
        for step in walks.get(self.method, self._singlestep)(run, x):
            yield step
            x, t = step.x_s, step.s
        if self.final_denoise:
            x_0 = run.denoise(x, t)
            yield Step(t, None, x, x_0, x_0)

    def check_reversible(self) -> None:
        """Raises a UserError unless the method is singlestep and the order 1 or 2."""
        super().check_reversible()
        if "singlestep" not in self.method or self.order > 2:
            raise UserError(
                f"DPMSolver walks from images to noises as singlestep of order 1 or 2, not as {self.method} of order "
                f"{self.order}; give --sampler.method singlestep --sampler.order 2"
            )

    def walk_back(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Steps over the same times, the last one first."""
        update, times = _Update(run.kernel, self.algorithm, self.solver_type), self.times(run.kernel).flip(0)
        x = noised(run, x, times[0]) if self.final_denoise else x
        for order, (t, s) in zip(reversed(self.orders()), pairwise(times), strict=True):
            inner = time_grid(run.kernel, self.spacing, order, s.item(), t.item(), self.rho)[1:-1].flip(0)
            x_0 = run.denoise(x, t)
            yield (step := Step(t, s, x, x_0, update.singlestep(run, x, update.model(x, x_0, t), t, s, [*inner])[-1]))
            x = step.x_s

    def _singlestep(self, run: Run, x: Tensor) -> Iterator[Step]:
        update = _Update(run.kernel, self.algorithm, self.solver_type)
        times = self.times(run.kernel)
        for order, (t, s) in zip(self.orders(), pairwise(times), strict=True):
            inner = time_grid(run.kernel, self.spacing, order, t.item(), s.item(), self.rho)[1:-1]
            x_0 = run.denoise(x, t)
            step = Step(t, s, x, x_0, update.singlestep(run, x, update.model(x, x_0, t), t, s, [*inner])[-1])
            yield step
            x = step.x_s

    def _multistep(self, run: Run, x: Tensor) -> Iterator[Step]:
        update = _Update(run.kernel, self.algorithm, self.solver_type)
        times = self.times(run.kernel)
        past: list[tuple[Tensor, Tensor]] = []
        for order, (t, s) in zip(self.orders(), pairwise(times), strict=True):
            x_0 = run.denoise(x, t)
            past = [(t, update.model(x, x_0, t)), *past[: self.order - 1]]
            step = Step(t, s, x, x_0, update.multistep(x, past[:order], s))
            yield step
            x = step.x_s

    def _adaptive(self, run: Run, x: Tensor) -> Iterator[Step]:
        kernel, update = run.kernel, _Update(run.kernel, self.algorithm, self.solver_type)
        ends = kernel.t_max, end_time(kernel, self.t_end)
        t, end = (torch.full((len(x), 1, 1, 1), each, dtype=torch.float64, device=x.device) for each in ends)
        parts = [0.5] if self.order == 2 else [1 / 3, 2 / 3]
        size, before, x_0 = torch.full_like(t, _FIRST_STEP), x, torch.zeros_like(x)
        stale = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.evaluations = int(self.final_denoise)
        for _ in attempts("DPMSolver"):
            rows = (t - end > _TIME_TOLERANCE).flatten().nonzero().squeeze(1)
            if not len(rows):
                break
            if len(fresh := rows[stale[rows]]):
                x_0 = put(x_0, fresh, run.of_rows(fresh).denoise(x[fresh], t[fresh]))
                self.evaluations += 1
            at, h, start = t[rows], size[rows], kernel.log_snr(t[rows])
            s, model = kernel.time_of_log_snr(start + h), update.model(x[rows], x_0[rows], at)
            inner = [kernel.time_of_log_snr(start + part * h) for part in parts]
            *_, low, high = update.singlestep(run.of_rows(rows), x[rows], model, at, s, inner)
            self.evaluations += len(inner)
            error = self.error_of(low, high, before[rows])
            accepted = ~(error > 1)
            left = kernel.log_snr(end[rows]) - torch.where(accepted, kernel.log_snr(s), start)
            factor = (_SAFETY * power(error, -1 / self.order)).clamp(max=self.growth)
            size = put(size, rows, torch.minimum(h * factor, left))
            kept = accepted.flatten().nonzero().squeeze(1)
            moved = rows[kept]
            t_s, x_s = put(t, moved, s[kept]), put(x, moved, high[kept])
            step = Step(t.flatten(), t_s.flatten(), x, x_0, x_s)
            stale = torch.zeros_like(stale).index_fill(0, moved, True)
            yield step
            x, t, before = step.x_s, t_s, put(before, moved, low[kept])
            stale |= x is not x_s  # steered from outside: what was denoised is not this image

    def error_of(self, low: Tensor, high: Tensor, before: Tensor) -> Tensor:
        """Returns each image's error of an adaptive step in units of the tolerances: accepted up to 1.

        Args:
            low: States by the order below, (B, C, H, W).
            high: States by the full order.
            before: States of order below at the step's start.

        Returns:
            Shape (B, 1, 1, 1); 0 for an image that is not finite, whose walk then ends.
        """
        allowed = (self.rtol * torch.maximum(low.abs(), before.abs())).clamp(min=self.atol)
        return rms((high - low) / allowed).nan_to_num(0.0, 0.0)


@dataclass(frozen=True)
class _Update:
    """The update of the module's docstring, for one algorithm under one kernel."""

    kernel: Kernel
    algorithm: Algorithm
    solver_type: SolverType

    def model(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """What is expanded: the noise, or the denoised image."""
        return noise_in(self.kernel, x_t, x_0, t) if self.algorithm == "dpmsolver" else x_0

    def advance(self, x: Tensor, t: Tensor, s: Tensor, m: Tensor, *slopes: Tensor, taylor: bool = True) -> Tensor:
        """From time t to s with the model's value and its derivatives in units of the step."""
        z = self.kernel.log_snr(s) - self.kernel.log_snr(t)
        a, b = self.kernel.alpha, self.kernel.sigma
        if self.algorithm == "dpmsolver++":
            z, a, b = -z, b, a
        phi = torch.expm1(z)
        total = phi * m
        if slopes and not taylor:
            total = total + phi / 2 * slopes[0]
        elif slopes:
            for k, slope in enumerate(slopes, 1):
                phi = phi / z - 1 / math.factorial(k)
                total = total + phi * slope
        return a(s) / a(t) * x - b(s) * total

    def singlestep(self, run: Run, x: Tensor, m: Tensor, t: Tensor, s: Tensor, inner: list[Tensor]) -> list[Tensor]:
        """The states at s by every order up to ``len(inner) + 1``, from evaluations at the inner times."""
        start = self.kernel.log_snr(t)
        h = self.kernel.log_snr(s) - start
        parts = [(self.kernel.log_snr(time) - start) / h for time in inner]
        taylor = self.solver_type == "taylor"
        states, slopes = [self.advance(x, t, s, m)], list[Tensor]()
        for i, (time, part) in enumerate(zip(inner, parts, strict=True)):
            x_inner = self.advance(x, t, time, m, *(part * slope for slope in slopes))
            slopes.append((self.model(x_inner, run.denoise(x_inner, time), time) - m) / part)
            if i == 0:
                states.append(self.advance(x, t, s, m, slopes[0], taylor=taylor))
            elif not taylor:
                states.append(self.advance(x, t, s, m, slopes[1]))
            else:
                (near, far), spread = parts, parts[1] - parts[0]
                first = (far * slopes[0] - near * slopes[1]) / spread
                states.append(self.advance(x, t, s, m, first, 2 * (slopes[1] - slopes[0]) / spread))
        return states

    def multistep(self, x: Tensor, past: list[tuple[Tensor, Tensor]], s: Tensor) -> Tensor:
        """The state at s by the order ``len(past)``, from the latest evaluations, newest first."""
        times, models = zip(*past, strict=True)
        t, m = times[0], models[0]
        if len(past) == 1:
            return self.advance(x, t, s, m)
        log_snr = [self.kernel.log_snr(time) for time in (s, *times)]
        h = log_snr[0] - log_snr[1]
        steps = [(newer - older) / h for newer, older in pairwise(log_snr[1:])]
        slopes = [(newer - older) / step for (newer, older), step in zip(pairwise(models), steps, strict=True)]
        if len(past) == 2:
            return self.advance(x, t, s, m, slopes[0], taylor=self.solver_type == "taylor")
        bend = (slopes[0] - slopes[1]) / (steps[0] + steps[1])
        return self.advance(x, t, s, m, slopes[0] + steps[0] * bend, bend)
