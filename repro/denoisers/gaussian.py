"""The exact denoiser of independent Gaussian pixels."""

from __future__ import annotations

from torch import Tensor

from repro.denoisers.base import Denoiser
from repro.errors import UserError
from repro.kernels import Kernel

__all__ = ["GaussianDenoiser"]


class GaussianDenoiser(Denoiser):
    r"""Posterior mean when every pixel of the data is :math:`N(\mu, c^2)`.

    .. math:: \hat x_0 = \mu + \frac{\alpha_t c^2}{\alpha_t^2 c^2 + \sigma_t^2} (x_t - \alpha_t \mu)

    Its probability-flow equation has a closed form, :meth:`transport`, that every deterministic sampler must reach.

    Args:
        kernel: The perturbation kernel.
        image_shape: (C, H, W).
        mean: :math:`\mu`.
        std: :math:`c > 0`.

    Raises:
        UserError: ``std`` not above 0.
    """

    def __init__(
        self, kernel: Kernel, image_shape: tuple[int, int, int] = (1, 8, 8), mean: float = 0.0, std: float = 0.5
    ) -> None:
        super().__init__()
        if std <= 0:
            raise UserError(f"std is {std:g}; give a standard deviation above 0")
        self.kernel, self.image_shape, self.mean, self.std = kernel, tuple(image_shape), mean, std

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        alpha, sigma = self.scales(x_t, t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def transport(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""Where the probability-flow equation carries ``x_t`` from time t to time s.

        .. math:: x_s = \alpha_s \mu + \sqrt{\frac{\alpha_s^2 c^2 + \sigma_s^2}{\alpha_t^2 c^2 + \sigma_t^2}}
                  (x_t - \alpha_t \mu)
        """
        alpha_t, sigma_t = self.scales(x_t, t)
        alpha_s, sigma_s = self.scales(x_t, s)
        growth = ((alpha_s * self.std) ** 2 + sigma_s**2).sqrt() / ((alpha_t * self.std) ** 2 + sigma_t**2).sqrt()
        return alpha_s * self.mean + growth * (x_t - alpha_t * self.mean)
