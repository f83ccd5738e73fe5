"""An adaptive Runge-Kutta sampler, through a library."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from repro.errors import UserError
from repro.samplers.base import Run, Sampler, Step
from repro.samplers.steps import end_time, noise_in

__all__ = ["RK45"]


class RK45(Sampler):
    r"""The probability-flow equation by the adaptive Runge-Kutta pair of Dormand and Prince, orders 5 and 4.

    It is solved on the circle, where every kernel gives one and the same smooth equation of unit scale: with
    :math:`\tan\varphi = \sigma_t / \alpha_t` and :math:`z = x_t / \sqrt{\alpha_t^2 + \sigma_t^2}`,

    .. math:: \frac{dz}{d\varphi} = \cos\varphi\, \hat\epsilon - \sin\varphi\, \hat x_0

    Steps are common to the batch. A step is accepted when the error of EVERY image, its root mean square over the
    pixels against ``atol + rtol * |z|``, is within bounds (torchdiffeq's own norm averages over the batch). So no image
    suffers from its batch mates; they move it by no more than the solver's own error, which is some ten times the
    tolerance and shrinks with it.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance, for images of unit scale.
        t_end: Smallest time; by default the kernel's ``t_min``.
        final_denoise: Whether a last evaluation leads from ``t_end`` to the clean image; score_sde's ODE sampler,
            whose tolerances these are, does not by default.

    Raises:
        UserError: tolerances not above 0.

    Source: Song et al. 2021, arXiv:2011.13456, appendix D.1 and D.4; solver ``dopri5`` of torchdiffeq.
    """

    def __init__(
        self, rtol: float = 1e-5, atol: float = 1e-5, t_end: float | None = None, final_denoise: bool = False
    ) -> None:
        if not (rtol > 0 and atol > 0):
            raise UserError(f"rtol and atol must be above 0; got {rtol:g} and {atol:g}")
        self.rtol, self.atol, self.t_end, self.final_denoise = rtol, atol, t_end, final_denoise

    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """One step from the kernel's ``t_max`` to the end, then, with ``final_denoise``, to the clean image."""
        from torchdiffeq import odeint

        kernel = run.kernel
        t, s = torch.tensor([kernel.t_max, end_time(kernel, self.t_end)], dtype=torch.float64)
        first_x_0: list[Tensor] = []
        self.evaluations = 0

        def slope(angle: Tensor, z: Tensor) -> Tensor:
            time = kernel.time_of_ratio(angle.tan())
            x_t = z * torch.hypot(kernel.alpha(time), kernel.sigma(time))
            x_0 = run.denoise(x_t, time)
            self.evaluations += 1
            first_x_0.extend([x_0] * (not first_x_0))
            return angle.cos() * noise_in(kernel, x_t, x_0, time) - angle.sin() * x_0

        angles = kernel.ratio(torch.stack([t, s])).atan().to(x.device)
        scale = torch.hypot(kernel.alpha(t), kernel.sigma(t))
        options = {"norm": _worst_image, "step_t": angles[1:]}
        z = odeint(slope, x / scale, angles, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)[1]
        step = Step(t, s, x, first_x_0[0], z * torch.hypot(kernel.alpha(s), kernel.sigma(s)))
        yield step
        if self.final_denoise:
            self.evaluations += 1
            x_0 = run.denoise(step.x_s, s)
            yield Step(s, None, step.x_s, x_0, x_0)


def _worst_image(error: Tensor) -> Tensor:
    return error.flatten(1).square().mean(1).sqrt().max() if error.ndim > 1 else error.abs().max()
