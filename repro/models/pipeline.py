"""Unconditional pipelines of the diffusers library as models of numbered noise."""

from __future__ import annotations

import hashlib
import json
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError, check_at_least
from repro.models.base import Model, fingerprint_of
from repro.models.pretrained import unconditional_in
from repro.models.schedulers import check_scheduler, scheduler_of, scheduler_record
from repro.noise import NoiseStream
from repro.samplers.base import Sampler

__all__ = ["Pipeline"]


class Pipeline(Model):
    """An unconditional pipeline of diffusers; image i is what its network and scheduler make of noise i.

    Any network of the class ``UNet2DModel`` under any scheduler that draws no noise of its own, with or without an
    autoencoder (latent diffusion, whose noise i is that of the latents). Noise i is multiplied by the scheduler's
    ``init_noise_sigma``. Where the network is one of DDPM's, ``repro import`` makes a model of this project of it,
    with every sampler. Needs the extra ``diffusers``.

    Args:
        pipeline: A folder in the layout of diffusers, or a name on its hub, looked up in the local cache first.
            Weights are read from safetensors only.
        scheduler: ``DDIM`` (eta 0), ``DPMSolver`` (DPM-Solver++, multistep, order 2), or ``own`` for the pipeline's.
        steps: Steps of the scheduler.

    Raises:
        UserError: the extra is not installed; a pipeline that cannot be had or read; pickled weights; a scheduler that
            is unknown or draws noise; a number out of range.

    Example:
        >>> model = Pipeline("models/ddpm-cifar10-32")  # doctest: +SKIP
        >>> model.sample(range(4)).shape  # doctest: +SKIP
        torch.Size([4, 3, 32, 32])
    """

    inside = MappingProxyType({"pipeline": None})

    def __init__(self, pipeline: str, scheduler: str = "DDIM", steps: int = 50) -> None:
        super().__init__()
        check_scheduler(scheduler)
        check_at_least(1, "Pipeline", steps=steps)
        self.pipeline, self.steps = pipeline, steps
        self.unet, own, self.autoencoder = unconditional_in(pipeline)
        self._scheduler = scheduler_of(own, scheduler)
        config = self.unet.config
        if config.class_embed_type is not None or config.num_class_embeds is not None:
            raise UserError(f"the network of {pipeline} takes classes; import it: repro import {pipeline}")
        if config.sample_size is None:
            raise UserError(f"{pipeline} does not say the size of its images; set sample_size in unet/config.json")
        side = config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        self.noise_shape = self.image_shape = (config.in_channels, height, width)
        if self.autoencoder is not None:
            factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
            self.image_shape = (self.autoencoder.config.out_channels, factor * height, factor * width)

    def sampler_record(self, sampler: Sampler | None = None) -> dict[str, Any]:
        """Returns the scheduler with its settings and the number of steps."""
        return scheduler_record(self._scheduler, self.steps)

    def fingerprint(self) -> str:
        """Computes the SHA-256 over the settings, the scheduler, and every weight."""
        settings = {"scheduler": self.sampler_record(), "model": fingerprint_of(self)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def check_drawing(self, sampler: Sampler | None = None, guidance: float = 1.0) -> None:
        """Refuses another sampler, for which this model has an argument of its own, and guidance."""
        if sampler is not None:
            raise UserError("Pipeline samples with a scheduler; name it: --model.scheduler DDIM")
        super().check_drawing(None, guidance)

    @torch.no_grad()
    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws images (n, C, H, W), about [-1, 1], from numbered noises."""
        self._scheduler.set_timesteps(self.steps, device=self.device)
        x = noise.draw(self.noise_shape).to(self.device, self.unet.dtype) * self._scheduler.init_noise_sigma
        for t in self._scheduler.timesteps:
            output = self.unet(self._scheduler.scale_model_input(x, t), t).sample
            x = self._scheduler.step(output[:, : x.shape[1]], t, x).prev_sample
        if self.autoencoder is None:
            return x
        return self.autoencoder.decode(x / self.autoencoder.config.scaling_factor).sample
