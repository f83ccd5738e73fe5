"""Training a denoiser on images: what all modes of it share, and training from scratch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.denoisers import NetworkDenoiser
from repro.images import to_float
from repro.kernels import Kernel
from repro.models.base import GenerativeModule
from repro.networks import Network
from repro.noise import NoiseStream
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler
from repro.times import TimeDistribution, UniformTimes
from repro.training.training import TrainedModule

__all__ = ["DenoiserModule", "Diffusion"]


class DenoiserModule(TrainedModule, GenerativeModule):
    """Base of the modules that train a network to denoise; one of them defines ``loss``.

    Args:
        denoiser: The network under its kernel and parameterisation.
        sampler: How images are drawn from the trained model.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        **training: As for :class:`~repro.training.training.TrainedModule`.
    """

    trained: NetworkDenoiser
    average: NetworkDenoiser

    def __init__(self, denoiser: NetworkDenoiser, sampler: Sampler, compile: bool = False, **training: Any) -> None:
        super().__init__(denoiser, **training)
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes
        self.sampler = sampler
        if compile:
            self.trained.network.compile()
            self.average.network.compile()

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The trained denoiser, with the weights of the last step."""
        return self.trained

    @property
    def takes_no_labels(self) -> bool:
        """Whether the network has a null class."""
        return getattr(self.trained.network, "has_null_class", False)

    def generate(self, noise: NoiseStream, labels: Tensor | None = None) -> Tensor:
        """Images of numbered noises, drawn with the averaged weights."""
        return self.sampler.sample(self.guided(self.average), noise, labels)


class Diffusion(DenoiserModule):
    r"""A network trained from scratch to denoise under a kernel; it samples with its averaged weights.

    .. math:: L = E_{x_0, t, \epsilon}\; w(t)\, \| F(c_{in} x_t, c_{noise}(t)) - \mathrm{target} \|^2 / d

    Target and weight belong to the parameterisation, the distribution of t to ``times``.

    Args:
        network: The network.
        kernel: The perturbation kernel.
        parameterization: What the network's output means.
        sampler: How images are drawn from the trained model.
        times: Distribution of the training times; uniform by default.
        **training: As for :class:`DenoiserModule`.
    """

    def __init__(
        self,
        network: Network,
        kernel: Kernel,
        parameterization: Parameterization,
        sampler: Sampler,
        times: TimeDistribution | None = None,
        **training: Any,
    ) -> None:
        super().__init__(NetworkDenoiser(network, kernel, parameterization), sampler, **training)
        self.times = times or UniformTimes()

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Training loss of each image at fresh times and noises, shape (B,)."""
        t, eps = self.draws(x_0)
        return self.loss_at(self.trained, x_0, eps, t, labels)

    def draws(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """Fresh times (B,) and noises of a batch, from the default generator."""
        t = self.times.draw(len(x_0), self.trained.kernel, x_0.device)
        return t, torch.randn_like(x_0)

    @staticmethod
    def loss_at(denoiser: NetworkDenoiser, x_0: Tensor, eps: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Training loss of each image under given noises and times, shape (B,)."""
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
