"""Models that draw by walking a denoiser with a sampler: trained networks."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.denoisers import Denoiser, GuidedDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import Kernel
from repro.models.base import Model
from repro.networks import Network
from repro.noise import NoiseStream
from repro.parameterizations import ConsistencyPreconditioning, Parameterization
from repro.samplers.base import Sampler
from repro.times import TimeDistribution

__all__ = ["Denoising", "DenoisingModel", "consistency_boundary", "not_a_jump"]


class Denoising(Model):
    """Base of the models that are a denoiser and a sampler.

    Args:
        denoiser: The denoiser.
        sampler: How images are drawn from it, unless another sampler is given.
    """

    denoiser: Denoiser
    sampler: Sampler

    def __init__(self, denoiser: Denoiser, sampler: Sampler) -> None:
        super().__init__()
        self.denoiser, self.sampler = denoiser, sampler
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes

    def check_drawing(self, sampler: Sampler | None = None, guidance: float = 1.0) -> None:
        """Raises UserError when the sampler is of another kind of model, or guidance cannot be had."""
        if sampler is not None and self.sampler.consistency and not sampler.consistency:
            raise not_a_jump(sampler)
        super().check_drawing(sampler, guidance)

    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws float images (n, C, H, W) from numbered noises."""
        denoiser = self.denoiser if guidance == 1 else GuidedDenoiser(self.denoiser, guidance)
        return (sampler or self.sampler).sample(denoiser, noise, labels)

    def encode(
        self, images: Tensor, labels: Tensor | None = None, sampler: Sampler | None = None, guidance: float = 1.0
    ) -> Tensor:
        """Finds the noises, unit variance, float (n, C, H, W), that images are drawn from."""
        self.check_labels(labels)
        self.check_drawing(sampler, guidance)
        denoiser = self.denoiser if guidance == 1 else GuidedDenoiser(self.denoiser, guidance)
        with torch.no_grad():
            return (sampler or self.sampler).encode(denoiser, images, labels)


class DenoisingModel(Denoising):
    """A network under its kernel and parameterisation, drawn from with a sampler.

    Args:
        network: The network, with the weights that images are drawn with.
        kernel: The perturbation kernel that it was trained under.
        parameterization: What the network's output means.
        sampler: How images are drawn, unless another sampler is given.
        times: Distribution of the times that it was trained at, where that is known.

    Example:
        >>> from repro.kernels import EDM
        >>> from repro.networks.mlp import MLP
        >>> from repro.parameterizations import EDMPreconditioning
        >>> from repro.samplers.heun import Heun
        >>> model = DenoisingModel(MLP(8, 1, width=16, depth=1), EDM(), EDMPreconditioning(), Heun(steps=2))
        >>> model.sample(range(3)).shape
        torch.Size([3, 1, 8, 8])
    """

    denoiser: NetworkDenoiser

    def __init__(
        self,
        network: Network,
        kernel: Kernel,
        parameterization: Parameterization,
        sampler: Sampler,
        times: TimeDistribution | None = None,
    ) -> None:
        super().__init__(NetworkDenoiser(network, kernel, parameterization), sampler)
        self.times = times

    @property
    def takes_no_labels(self) -> bool:
        """True: the network has a null class."""
        return getattr(self.denoiser.network, "has_null_class", False)


def not_a_jump(sampler: Sampler) -> UserError:
    """Returns the error for a sampler that walks, where a consistency function jumps."""
    return UserError(
        f"sampler is {type(sampler).__name__}, which walks a denoiser; a consistency model jumps to the image: "
        "take Consistency, with any number of steps"
    )


def consistency_boundary(
    kernel: Kernel, sigma_data: float | None = None, condition_scale: float | None = None
) -> ConsistencyPreconditioning:
    """Builds the parameterisation of a consistency function whose boundary lies at a kernel's smallest time.

    Args:
        kernel: The kernel.
        sigma_data: Standard deviation of the data, or None for the default.
        condition_scale: Factor of the noise level that the network sees, or None for the default.
    """
    lowest = kernel.ratio(torch.tensor(kernel.t_min, dtype=torch.float64)).item()
    options = {"sigma_data": sigma_data, "condition_scale": condition_scale}
    return ConsistencyPreconditioning(ratio_min=lowest, **{k: v for k, v in options.items() if v is not None})
