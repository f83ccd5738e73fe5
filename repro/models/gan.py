"""The generator of a GAN as a model."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.devices import onto
from repro.errors import check_at_least
from repro.models.base import Model
from repro.models.latents import latents, unconditional_shape
from repro.networks.base import one_of
from repro.networks.gan import ConvGenerator, ResidualGenerator
from repro.noise import NoiseStream
from repro.samplers.base import Sampler

__all__ = ["GANModel"]

_GENERATORS = {"residual": ResidualGenerator, "conv": ConvGenerator}


class GANModel(Model):
    """A generator; image i is its answer to the first normals of noise i.

    Args:
        image_size: Pixels a side: 4 to 7 times a power of two above 1, such as 8, 16, 28 or 32.
        channels: Channels of the images.
        architecture: "residual", or "conv" (like DCGAN).
        latent: Length of the latent vector.
        width: Channels of every residual block, or of the last transposed convolution.

    Raises:
        UserError: a size that does not fit, or an unknown architecture.

    Example:
        >>> GANModel(8, 1, width=4, latent=16).sample(range(3)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        architecture: str = "residual",
        latent: int = 128,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.image_shape = unconditional_shape("GAN", image_size, channels, None)
        check_at_least(1, "GAN", latent=latent, width=width)
        generator = _GENERATORS[one_of("architecture of GAN", architecture, tuple(_GENERATORS))]
        self.generator = generator(self.image_shape[1], self.image_shape[0], latent, width)

    @torch.no_grad()
    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws float images (n, C, H, W) from numbered noises; see :func:`~repro.models.latents.latents`."""
        weight = next(self.generator.parameters())
        return self.generator(onto(weight.device, latents(noise, self.generator.latent), weight.dtype))
