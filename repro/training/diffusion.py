"""Training a network from scratch to denoise."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from repro.denoisers import NetworkDenoiser
from repro.images import to_float
from repro.kernels import Kernel
from repro.models.denoising import DenoisingModel
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler
from repro.times import TimeDistribution, UniformTimes
from repro.training.base import LossModule
from repro.training.optimization import Average, Optimization

__all__ = ["Diffusion", "model_of"]


def model_of(
    trained: NetworkDenoiser, sampler: Sampler, times: TimeDistribution | None = None, compile: bool = False
) -> DenoisingModel:
    """Builds the model that a trained denoiser's averaged weights make, starting as its copy.

    Args:
        trained: The denoiser that is trained.
        sampler: How images are drawn from the model.
        times: The times that it is trained at.
        compile: Whether both networks are compiled.
    """
    network = copy.deepcopy(trained.network)
    if compile:
        trained.network.compile()
        network.compile()
    return DenoisingModel(network, trained.kernel, trained.parameterization, sampler, times)


class Diffusion(LossModule):
    r"""A network trained from scratch to denoise under a kernel; its model has the averaged weights.

    .. math:: L = E_{x_0, t, \epsilon}\; w(t)\, \| F(c_{in} x_t, c_{noise}(t)) - \mathrm{target} \|^2 / d

    Target and weight belong to the parameterisation, the distribution of t to ``times``.

    Args:
        network: The network.
        kernel: The perturbation kernel.
        parameterization: What the network's output means.
        sampler: How images are drawn from the trained model.
        times: Distribution of the training times; uniform by default.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
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
        UserError: a value outside its range, or an unknown optimiser.
    """

    trained: NetworkDenoiser
    model: DenoisingModel

    def __init__(
        self,
        network: Network,
        kernel: Kernel,
        parameterization: Parameterization,
        sampler: Sampler,
        times: TimeDistribution | None = None,
        compile: bool = False,
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
        trained, times = NetworkDenoiser(network, kernel, parameterization), times or UniformTimes()
        super().__init__(
            model_of(trained, sampler, times, compile),
            trained,
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
        )
        self.times = times

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the training loss of each image at fresh times and noises, shape (B,)."""
        t, eps = self.draws(x_0)
        return self.loss_at(self.trained, x_0, eps, t, labels)

    def draws(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the fresh times (B,) and noises of a batch, from the default generator."""
        t = self.times.draw(len(x_0), self.trained.kernel, x_0.device)
        return t, torch.randn_like(x_0)

    @staticmethod
    def loss_at(denoiser: NetworkDenoiser, x_0: Tensor, eps: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Computes the training loss of each image under given noises and times, shape (B,)."""
        alpha, sigma = denoiser.scales(x_0, t)
        parameterization = denoiser.parameterization
        error = denoiser(alpha * x_0 + sigma * eps, t, labels) - parameterization.target(x_0, eps, alpha, sigma)
        return (error.square() * parameterization.loss_weight(alpha, sigma)).flatten(1).mean(1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights on held-out images, at fixed noises and evenly spread times."""
        images, labels = batch
        x_0 = to_float(images)
        generator = torch.Generator().manual_seed(batch_idx)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        u = (torch.arange(len(x_0), device=x_0.device) + 0.5) / len(x_0)
        t = self.times.of_uniform(u, self.trained.kernel)
        loss = self.loss_at(self.average, x_0, eps, t, labels if self.num_classes else None).mean()
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(images))
