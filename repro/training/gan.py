"""Generative adversarial networks: Wasserstein with gradient penalty, and spectrally normalised with hinge loss."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from repro.errors import check_at_least
from repro.images import to_float
from repro.models.gan import GANModel
from repro.models.latents import unconditional_shape
from repro.networks.base import one_of
from repro.networks.gan import (
    LOSSES,
    ConvDiscriminator,
    ResidualDiscriminator,
    gradient_penalty,
)
from repro.training.base import TrainingModule
from repro.training.optimization import Average, Optimization

__all__ = ["GAN"]


class _Recipe(NamedTuple):
    loss: str
    penalised: bool
    spectral_norm: bool
    pooling: str


_RECIPES = {
    "wgan_gp": _Recipe("wasserstein", penalised=True, spectral_norm=False, pooling="mean"),
    "sngan": _Recipe("hinge", penalised=False, spectral_norm=True, pooling="sum"),
}


def _discriminator(shape: tuple[int, int, int], architecture: str, width: int, recipe: _Recipe) -> nn.Module:
    check_at_least(1, "GAN", discriminator_width=width)
    channels, image_size, _ = shape
    if architecture == "conv":
        return ConvDiscriminator(image_size, channels, width, recipe.spectral_norm)
    return ResidualDiscriminator(image_size, channels, width, None, recipe.spectral_norm, recipe.pooling)


class GAN(TrainingModule):
    r"""A generator trained against a discriminator; image i is the generator's answer to the first normals of noise i.

    ``loss="wgan_gp"``: the discriminator D lowers
    :math:`E\,D(\tilde x) - E\,D(x) + \lambda E (\|\nabla D(\hat x)\| - 1)^2`, without normalisation, and
    ``loss="sngan"``: :math:`E \max(0, 1 - D(x)) + E \max(0, 1 + D(\tilde x))`, spectrally normalised; the generator
    lowers :math:`-E\,D(\tilde x)` in both. A training step is a discriminator step on one batch; before the first of
    every ``n_critic`` of them the generator takes one too. Several devices need
    ``--trainer.strategy ddp_find_unused_parameters_true``.

    Args:
        image_size: Pixels a side: 4 to 7 times a power of two above 1, such as 8, 16, 28 or 32.
        channels: Channels of the images.
        num_classes: 0 or null; the model is unconditional.
        loss: "wgan_gp" or "sngan".
        architecture: "residual", or "conv" (like DCGAN) for generator and discriminator.
        latent: Length of the latent vector.
        width: Channels of the generator: of every residual block, or of the last transposed convolution.
        discriminator_width: Channels of the discriminator: of every residual block, or of the first convolutions; by
            default ``width``.
        n_critic: Discriminator steps for each generator step.
        penalty: Weight of the gradient penalty of "wgan_gp".
        generator_batch: Latents of a generator step, in multiples of the batch.
        lr_decay: Images over which the learning rate falls linearly to 0; 0 keeps it.
        optimizer_args: Further arguments of both optimisers; Adam has ``betas: [0, 0.9]`` unless they are given.
        ema_halflife: Half-life of the generator's averaged weights, in images; 0 samples with those of the last step.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Attributes:
        trained: The generator; its average is the model's.
        discriminator: The discriminator.

    Raises:
        UserError: a size that does not fit, an unknown option, or a value outside its range.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1; Miyato et al. 2018, arXiv:1802.05957.

    Example:
        >>> GAN(8, 1, loss="wgan_gp", width=4, latent=16).model.sample(range(3)).shape
        torch.Size([3, 1, 8, 8])
    """

    averaged: ClassVar[str] = "generator"
    model: GANModel

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        loss: str = "sngan",
        architecture: str = "residual",
        latent: int = 128,
        width: int = 128,
        discriminator_width: int | None = None,
        n_critic: int = 5,
        penalty: float = 10.0,
        generator_batch: int = 1,
        lr_decay: int = 0,
        optimizer_args: dict[str, Any] | None = None,
        ema_halflife: float = 0,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        lr_warmup: int = 0,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        unconditional_shape("GAN", image_size, channels, num_classes)
        recipe = _RECIPES[one_of("loss of GAN", loss, _RECIPES)]
        check_at_least(1, "GAN", n_critic=n_critic, generator_batch=generator_batch)
        check_at_least(0, "GAN", penalty=penalty, lr_decay=lr_decay)
        model = GANModel(image_size, channels, architecture, latent, width)
        if optimizer == "Adam":
            optimizer_args = {"betas": (0.0, 0.9)} | (optimizer_args or {})
        super().__init__(
            model,
            copy.deepcopy(model.generator),
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
        )
        self.automatic_optimization = False
        self.discriminator = _discriminator(
            model.image_shape, architecture, width if discriminator_width is None else discriminator_width, recipe
        )
        if channels_last:
            self.discriminator.to(memory_format=torch.channels_last)
        self.losses, self.penalty = LOSSES[recipe.loss], penalty if recipe.penalised else 0.0
        self.n_critic, self.generator_batch, self.lr_decay = n_critic, generator_batch, lr_decay
        self._notes: dict[str, Tensor | float] = {}

    def generator_loss(self, count: int) -> Tensor:
        """Returns the generator's loss at ``count`` fresh latents, shape ()."""
        return self.losses.generator(self.discriminator(self._fakes(count)))

    def discriminator_losses(self, x_0: Tensor) -> dict[str, Tensor]:
        """Returns the parts of the discriminator's loss on images (B, C, H, W) in [-1, 1] and as many generated ones.

        Returns:
            ``loss_d``, and ``gradient_penalty`` with its weight where there is one; shape () each.
        """
        with torch.no_grad():
            fakes = self._fakes(len(x_0))
        parts = {"loss_d": self.losses.discriminator(*self.discriminator(torch.cat([x_0, fakes])).chunk(2))}
        if self.penalty:
            mix = torch.rand(len(x_0), device=x_0.device)
            parts["gradient_penalty"] = gradient_penalty(self.discriminator, x_0, fakes, mix, self.penalty)
        return parts

    def _fakes(self, count: int) -> Tensor:
        return self.trained(torch.randn(count, self.trained.latent, device=self.device))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Takes one discriminator step on uint8 images, after a generator step where its turn has come.

        Only the discriminator's steps are counted by the trainer.
        """
        images, _ = batch
        x_0, logs = self.start_step(images), self.logs_now
        generator, discriminator = self.optimizers()
        if self.trainer.global_step % self.n_critic == 0:
            self.discriminator.requires_grad_(False)
            self._backward(generator, {"loss_g": self.generator_loss(self.generator_batch * len(x_0))})
            self.discriminator.requires_grad_(True)
            self.trainer.strategy.optimizer_step(generator.optimizer, lambda: None)
        self._backward(discriminator, self.discriminator_losses(x_0))
        discriminator.step()
        seen = len(images) * self.trainer.world_size
        self.images_seen += seen
        self.update_average(seen)
        if logs:
            for name, value in self._notes.items():
                self.log(f"train/{name}", value)

    def _backward(self, optimizer: LightningOptimizer, parts: dict[str, Tensor]) -> None:
        optimizer.zero_grad()
        self.manual_backward(sum(parts.values()))
        self.note(**{name: part.detach() for name, part in parts.items()})

    def note(self, **values: Tensor | float) -> None:
        """Keeps values until the next step that is logged: the generator's steps are seldom among those."""
        self._notes |= values

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The discriminator's loss on held-out images against images of the averaged generator at fixed latents."""
        images, _ = batch
        z = torch.randn(len(images), self.average.latent, generator=torch.Generator().manual_seed(batch_idx))
        real, fake = (self.discriminator(x) for x in (to_float(images), self.average(z.to(self.device, self.dtype))))
        self.log("val/loss_d", self.losses.discriminator(real, fake), sync_dist=True, batch_size=len(images))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Returns one optimiser over the generator and one over the discriminator."""
        return [self.optimization.over(part) for part in (self.trained, self.discriminator)]

    def name_of(self, optimizer: torch.optim.Optimizer) -> str:
        """``_g`` for the generator's optimiser, ``_d`` for the discriminator's."""
        return "_g" if optimizer is self.trainer.optimizers[0] else "_d"

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step, from the images seen."""
        left = max(0.0, 1 - self.images_seen / self.lr_decay) if self.lr_decay else 1.0
        return super().learning_rate() * left
