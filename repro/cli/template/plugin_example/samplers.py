"""A sampler: how noise becomes an image."""

from torch import Tensor

from repro.samplers import Run
from repro.samplers.steps import FixedSteps

__all__ = ["StraightLines"]


class StraightLines(FixedSteps):
    r"""Keeps the noise that the denoised image implies: :math:`x_s = \alpha_s \hat x_0 + \sigma_s \hat\epsilon`.

    Args:
        steps: Denoiser calls an image.
    """

    def __init__(self, steps: int = 50) -> None:
        super().__init__(steps, "edm", t_end=None, final_denoise=True, rho=7.0, ratios=None)

    def step(self, run: Run, x_t: Tensor, t: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """The denoised image, and the state at time s."""
        x_0 = run.denoise(x_t, t)
        if s is None:
            return x_0, x_0
        noise = (x_t - run.kernel.alpha(t) * x_0) / run.kernel.sigma(t)
        return x_0, run.kernel.alpha(s) * x_0 + run.kernel.sigma(s) * noise
