"""A training mode: the loss that a network is trained with."""

from torch import Tensor

from repro.training import Diffusion

__all__ = ["AbsoluteError"]


class AbsoluteError(Diffusion):
    """Diffusion with the absolute error of the denoised image in place of the squared one."""

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Loss of each image at fresh times and noises, shape (B,)."""
        t, noise = self.draws(x_0)
        kernel, time = self.trained.kernel, t[:, None, None, None]
        x_t = kernel.alpha(time) * x_0 + kernel.sigma(time) * noise
        return (self.trained.denoise(x_t, t, labels) - x_0).abs().flatten(1).mean(1)
