"""Variational auto-encoders with a standard normal prior or a VampPrior."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from repro.errors import check_at_least
from repro.images import to_float
from repro.models.latents import unconditional_shape
from repro.models.vae import VAEModel
from repro.networks import vae
from repro.training.base import LossModule
from repro.training.optimization import Average, Optimization

__all__ = ["VAE"]


class VAE(LossModule):
    r"""A variational auto-encoder; :class:`~repro.models.vae.VAEModel` says how it draws.

    .. math:: L = -E_{q(z|x)} \log p(x|z) + \beta\, E_{q(z|x)} [\log q(z|x) - \log p(z)]

    That is the negative evidence lower bound in nats an image, once :math:`\beta` has risen to 1.

    Args:
        image_size: Pixels a side.
        channels: Channels of the images.
        num_classes: 0 or null; the model is unconditional.
        prior: "standard" or "vamp".
        latent: Length of the latent vector.
        hidden: Width of the hidden layers.
        likelihood: "logistic" (256 grey levels) or "bernoulli" (black and white).
        components: Pseudo-inputs of the VampPrior.
        pseudo_mean: Mean of their starting values; outside [0, 1] they never move.
        pseudo_std: Standard deviation of their starting values.
        binarize: Train on fresh black-and-white draws, each pixel white with its brightness as probability.
        kl_warmup: Images over which :math:`\beta` rises linearly from 0 to 1; 0 for none.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Raises:
        UserError: a missing size, an unknown option, or a value outside its range.

    Source: Kingma & Welling 2014, arXiv:1312.6114; Tomczak & Welling 2018, arXiv:1705.07120.

    Example:
        >>> VAE(8, 1, prior="vamp", hidden=16, components=5).model.sample(range(3)).shape
        torch.Size([3, 1, 8, 8])
    """

    averaged: ClassVar[str] = "network"
    trained: vae.VAE
    model: VAEModel

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        prior: str = "standard",
        latent: int = 40,
        hidden: int = 300,
        likelihood: str = "logistic",
        components: int = 500,
        pseudo_mean: float = 0.5,
        pseudo_std: float = 0.3,
        binarize: bool = False,
        kl_warmup: int = 0,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        unconditional_shape("VAE", image_size, channels, num_classes)
        check_at_least(0, kl_warmup=kl_warmup)
        model = VAEModel(image_size, channels, prior, latent, hidden, likelihood, components, pseudo_mean, pseudo_std)
        super().__init__(
            model,
            copy.deepcopy(model.network),
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
        )
        self.binarize, self.kl_warmup = binarize, kl_warmup

    @property
    def beta(self) -> float:
        """Weight of the divergence after the images seen so far."""
        return min(1.0, self.images_seen / self.kl_warmup) if self.kl_warmup else 1.0

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the loss of each image, shape (B,), with the divergence weighted by ``beta``."""
        reconstruction, divergence = self.terms(self.trained, x_0)
        self.note(reconstruction=reconstruction.mean(), kl=divergence.mean(), beta=self.beta)
        return -reconstruction + self.beta * divergence

    def terms(self, network: vae.VAE, x_0: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction log probability and divergence from the prior of each image, in nats, shape (B,) each.

        Args:
            network: The trained network or its average.
            x_0: Images in [-1, 1], shape (B, C, H, W).
            generator: Of the draws, on the CPU; None for fresh ones.
        """
        pixels, device = vae.to_pixels(x_0), "cpu" if generator else x_0.device
        if self.binarize:
            drawn = torch.rand(pixels.shape, generator=generator, device=device).to(pixels)
            pixels = (drawn < pixels).to(pixels)
        eps = torch.randn(len(pixels), network.latent, generator=generator, device=device).to(pixels)
        return network.terms(pixels, eps)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Computes the negative evidence lower bound of the averaged weights on held-out images, at fixed draws."""
        images, _ = batch
        terms = self.terms(self.average, to_float(images), torch.Generator().manual_seed(batch_idx))
        reconstruction, divergence = (term.mean() for term in terms)
        values = {"loss": divergence - reconstruction, "reconstruction": reconstruction, "kl": divergence}
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True, batch_size=len(images))
