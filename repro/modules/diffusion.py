"""Training a denoiser from scratch on images."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from repro.denoisers import NetworkDenoiser
from repro.errors import UserError, unknown
from repro.images import to_float
from repro.kernels import Kernel
from repro.modules.base import GenerativeModule, seed_step
from repro.modules.ema import ema_decay, update_average
from repro.modules.times import TimeDistribution, UniformTimes
from repro.networks import Network
from repro.noise import NoiseStream
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler

__all__ = ["Diffusion"]


class Diffusion(GenerativeModule):
    r"""A network trained from scratch to denoise under a kernel; it samples with its averaged weights.

    .. math:: L = E_{x_0, t, \epsilon}\; w(t)\, \| F(c_{in} x_t, c_{noise}(t)) - \mathrm{target} \|^2 / d

    Target and weight belong to the parameterisation, the distribution of t to ``times``. Every draw of a step derives
    from (seed, images seen), so a resumed run equals an uninterrupted one.

    Args:
        network: The network.
        kernel: The perturbation kernel.
        parameterization: What the network's output means.
        sampler: How images are drawn from the trained model.
        times: Distribution of the training times; uniform by default.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of noise, times and dropout.

    Raises:
        UserError: a value outside its range, or an unknown optimiser.
    """

    def __init__(
        self,
        network: Network,
        kernel: Kernel,
        parameterization: Parameterization,
        sampler: Sampler,
        times: TimeDistribution | None = None,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        compile: bool = False,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, legal in (
            ("lr", lr, lr > 0),
            ("lr_warmup", lr_warmup, lr_warmup >= 0),
            ("ema_halflife", ema_halflife, ema_halflife > 0),
            ("ema_rampup", ema_rampup, ema_rampup is None or ema_rampup > 0),
            ("nonfinite_limit", nonfinite_limit, nonfinite_limit >= 0),
        ):
            if not legal:
                raise UserError(f"{name} is {value}; it must be {'at least 0' if value < 0 else 'above 0'}")
        known = [name for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name != "Optimizer"]
        if optimizer not in known:
            raise unknown("optimizer", optimizer, known)
        self.denoiser = NetworkDenoiser(network, kernel, parameterization)
        self.image_shape, self.num_classes = self.denoiser.image_shape, self.denoiser.num_classes
        self.sampler, self.times = sampler, times or UniformTimes()
        self.optimizer, self.lr, self.optimizer_args = optimizer, lr, optimizer_args or {}
        self.lr_warmup, self.ema_halflife, self.ema_rampup = lr_warmup, ema_halflife, ema_rampup
        self.nonfinite_limit, self.nonfinite_steps = nonfinite_limit, 0
        self.channels_last, self.seed = channels_last, seed
        if channels_last:
            self.denoiser.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False).eval()
        if compile:
            self.denoiser.network.compile()
            self.average.network.compile()

    @property
    def takes_no_labels(self) -> bool:
        """Whether the network has a null class."""
        return getattr(self.denoiser.network, "null_label", None) is not None

    def train(self, mode: bool = True) -> Diffusion:
        """Puts the trained weights in training mode; the averaged ones always stay in evaluation mode."""
        super().train(mode)
        self.average.eval()
        return self

    def use_raw_weights(self) -> None:
        """Copies the weights of the last step over their average."""
        update_average(self.average, self.denoiser, 0.0)

    def generate(self, noise: NoiseStream, labels: Tensor | None = None) -> Tensor:
        """Images of numbered noises, drawn with the averaged weights."""
        return self.sampler.sample(self.average, noise, labels)

    def loss(self, denoiser: NetworkDenoiser, x_0: Tensor, eps: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Training loss of each image, shape (B,)."""
        alpha, sigma = denoiser.scales(x_0, t)
        parameterization = denoiser.parameterization
        error = denoiser(alpha * x_0 + sigma * eps, t, labels) - parameterization.target(x_0, eps, alpha, sigma)
        return (error.square() * parameterization.loss_weight(alpha, sigma)).flatten(1).mean(1)

    @property
    def _logs_now(self) -> bool:
        step = self.trainer.global_step
        return step == 0 or (step + 1) % self.trainer.log_every_n_steps == 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step on uint8 images and labels."""
        images, labels = batch
        seed_step(self.seed, self.images_seen, self.global_rank)
        x_0 = to_float(images)
        if self.channels_last:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)
        t = self.times.draw(len(x_0), self.denoiser.kernel, x_0.device)
        eps = torch.randn_like(x_0)
        loss = self.loss(self.denoiser, x_0, eps, t, labels if self.num_classes else None).mean()
        self.images_seen += len(images) * self.trainer.world_size
        if self._logs_now:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights on held-out images, at fixed noises and evenly spread times."""
        images, labels = batch
        x_0 = to_float(images)
        generator = torch.Generator().manual_seed(batch_idx)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        u = (torch.arange(len(x_0), device=x_0.device) + 0.5) / len(x_0)
        t = self.times.of_uniform(u, self.denoiser.kernel)
        loss = self.loss(self.average, x_0, eps, t, labels if self.num_classes else None).mean()
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser over the trained weights."""
        trained = [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]
        try:
            return getattr(torch.optim, self.optimizer)(trained, lr=self.lr, **self.optimizer_args)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"torch.optim.{self.optimizer} refuses its arguments: {error}") from error

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate from the images seen."""
        warm = min(1.0, (self.images_seen + 1) / self.lr_warmup) if self.lr_warmup else 1.0
        for group in self.optimizers().param_groups:
            group["lr"] = self.lr * warm

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measures the gradient; a step with a non-finite one is skipped and counted, too many stop the training."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            self.nonfinite_steps += 1
            optimizer.zero_grad(set_to_none=True)
            if self.nonfinite_steps > self.nonfinite_limit:
                raise UserError(
                    f"{self.nonfinite_steps} steps had a non-finite gradient (limit {self.nonfinite_limit}) after "
                    f"{self.images_seen} images; lower --model.lr or set --trainer.gradient_clip_val 1.0"
                )
        if self._logs_now:
            rate = optimizer.param_groups[0]["lr"]
            self.log_dict({"train/lr": rate, "train/grad_norm": norm, "train/nonfinite_steps": self.nonfinite_steps})

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then the average."""
        before = self.images_seen
        super().optimizer_step(*args, **kwargs)
        images = (self.images_seen - before) * self.trainer.accumulate_grad_batches
        update_average(
            self.average, self.denoiser, ema_decay(images, self.images_seen, self.ema_halflife, self.ema_rampup)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the count of skipped steps to the record."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["repro"]["nonfinite_steps"] = self.nonfinite_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes progress and the count of skipped steps back."""
        super().on_load_checkpoint(checkpoint)
        self.nonfinite_steps = checkpoint["repro"]["nonfinite_steps"]
