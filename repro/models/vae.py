"""A variational auto-encoder as a model: its decoder and its prior."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.devices import onto
from repro.models.base import Model
from repro.models.latents import latents, unconditional_shape
from repro.networks import vae
from repro.noise import NoiseStream
from repro.samplers.base import Sampler

__all__ = ["VAEModel"]


class VAEModel(Model):
    """A variational auto-encoder; image i is the decoder's mean at the draw from the prior that noise i stands for.

    The latent is made of the first normals of noise i, of which the VampPrior takes one more to pick a component.

    Args:
        image_size: Pixels a side.
        channels: Channels of the images.
        prior: "standard" or "vamp".
        latent: Length of the latent vector.
        hidden: Width of the hidden layers.
        likelihood: "logistic" (256 grey levels) or "bernoulli" (black and white).
        components: Pseudo-inputs of the VampPrior.
        pseudo_mean: Mean of their starting values; outside [0, 1] they never move.
        pseudo_std: Standard deviation of their starting values.

    Raises:
        UserError: a missing size, an unknown option, or a value outside its range.

    Example:
        >>> VAEModel(8, 1, prior="vamp", hidden=16, components=5).sample(range(3)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        prior: str = "standard",
        latent: int = 40,
        hidden: int = 300,
        likelihood: str = "logistic",
        components: int = 500,
        pseudo_mean: float = 0.5,
        pseudo_std: float = 0.3,
    ) -> None:
        super().__init__()
        self.image_shape = unconditional_shape("VAE", image_size, channels, None)
        self.network = vae.VAE(
            self.image_shape[1],
            self.image_shape[0],
            latent,
            hidden,
            likelihood,
            prior,
            components,
            pseudo_mean,
            pseudo_std,
        )

    @torch.no_grad()
    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws float images (n, C, H, W) from numbered noises; see :func:`~repro.models.latents.latents`."""
        weight = next(self.network.parameters())
        return self.network(onto(weight.device, latents(noise, self.network.noise_size), weight.dtype))
