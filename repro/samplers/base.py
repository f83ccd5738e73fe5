"""The contract of samplers: from numbered noise to images, through any denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.errors import UserError
from repro.noise import NoiseStream
from repro.registry import Plugin

__all__ = ["Sampler"]


class Sampler(Plugin, ABC):
    r"""Base of the samplers; one of them defines :meth:`walk`.

    The state is float64 whatever the network's dtype, so that steps add no rounding of their own.

    Attributes:
        stochastic: Whether :meth:`walk` draws further noise; it is numbered too, so images stay reproducible.
    """

    stochastic: ClassVar[bool] = False

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, noise: NoiseStream | Tensor, labels: Tensor | None = None) -> Tensor:
        """Images from noise.

        Args:
            denoiser: Any denoiser.
            noise: The noise stream of the wanted seeds, or unit normal starting noise (B, C, H, W) on any device
                (deterministic samplers only).
            labels: Class numbers (B,), or None.

        Returns:
            Images :math:`x_0`, float64 (B, C, H, W), on the denoiser's device (the noise's if that has no tensors).

        Raises:
            UserError: plain noise for a stochastic sampler, or noise of another shape than the denoiser's images.
        """
        if isinstance(noise, Tensor):
            if self.stochastic:
                raise UserError(f"{type(self).__name__} draws noise at each step; give it a NoiseStream of seeds")
            stream, start = None, noise
        else:
            stream, start = noise, noise.draw(denoiser.image_shape)
        if tuple(start.shape[1:]) != tuple(denoiser.image_shape):
            raise UserError(f"noise is {tuple(start.shape[1:])}, the denoiser's images are {denoiser.image_shape}")
        holder = next(iter([*denoiser.parameters(), *denoiser.buffers()]), start)
        x = start.to(holder.device, torch.float64) * denoiser.kernel.prior_scale
        return self.walk(denoiser, x, None if labels is None else labels.to(holder.device), stream)

    @abstractmethod
    def walk(self, denoiser: Denoiser, x: Tensor, labels: Tensor | None, stream: NoiseStream | None) -> Tensor:
        """Carries float64 ``x`` at ``denoiser.kernel.t_max`` to images."""
