"""Stable Diffusion pipelines of the diffusers library as models of numbered noise."""

from __future__ import annotations

import hashlib
import json
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from repro.denoisers.guided import check_guidance
from repro.errors import UserError, check_at_least
from repro.models.base import Model, fingerprint_of
from repro.models.pretrained import check_extra, pipeline_in
from repro.models.schedulers import check_scheduler, scheduler_of, scheduler_record
from repro.noise import NoiseStream
from repro.samplers.base import Sampler

__all__ = ["TextToImage"]

_AT_A_TIME = 8
_UNCUT = {"clip_sample": False, "thresholding": False}


class TextToImage(Model):
    """A Stable Diffusion pipeline under one prompt; image i is what it makes of latent i.

    Latent i is the numbered noise i at the latents' shape, times the scheduler's ``init_noise_sigma``. The noise levels
    and the meaning of the network's output are the pipeline's; the scheduler draws no noise of its own. The pipeline's
    safety checker is left out, because it puts black pictures in the place of samples. Needs the extra ``diffusers``.

    Args:
        pipeline: A folder in the layout of diffusers, or a name on its hub, looked up in the local cache first.
            Weights are read from safetensors only.
        prompt: The text; all models that are compared must have the same.
        negative_prompt: The text that guidance leads away from.
        scheduler: ``DDIM`` (eta 0), ``DPMSolver`` (DPM-Solver++, multistep, order 2), or ``own`` for the pipeline's.
        steps: Steps of the scheduler.
        guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none.
        size: Pixels a side; by default what the pipeline was trained for.

    Raises:
        UserError: the extra is not installed; a pipeline that cannot be had or read; pickled weights; a scheduler that
            is unknown or draws noise; a prompt that is empty or too long; a number out of range.

    Source: Zhang et al. 2024, arXiv:2310.05264, appendix E; Rombach et al. 2022, arXiv:2112.10752.

    Example:
        >>> model = TextToImage("models/sd-v1-4", "a photograph of an astronaut")  # doctest: +SKIP
        >>> model.sample(range(4)).shape  # doctest: +SKIP
        torch.Size([4, 3, 512, 512])
    """

    inside = MappingProxyType({"pipeline": None})

    def __init__(
        self,
        pipeline: str,
        prompt: str,
        negative_prompt: str = "",
        scheduler: str = "DDIM",
        steps: int = 50,
        guidance: float = 7.5,
        size: int | None = None,
    ) -> None:
        super().__init__()
        check_extra("TextToImage")
        check_scheduler(scheduler)
        check_at_least(1, "TextToImage", steps=steps)
        if not prompt.strip():
            raise UserError("the prompt is empty; type --model.prompt 'WHAT THE IMAGE SHOWS'")
        self.guidance = check_guidance(guidance)
        if self.guidance < 1:
            raise UserError(f"guidance is {guidance:g}; pipelines guide from 1 (none) upwards, such as 7.5")
        self.pipeline, self.prompt, self.negative_prompt, self.steps = pipeline, prompt, negative_prompt, steps
        made = self._made = pipeline_in(pipeline)
        made.scheduler = scheduler_of(made.scheduler, scheduler, **_UNCUT)
        self.unet, self.vae, self.text_encoder = made.unet, made.vae, made.text_encoder
        self.tokens = [self._tokens(text) for text in (prompt, negative_prompt)]
        factor, trained = made.vae_scale_factor, made.unet.config.sample_size
        size = size or (trained if isinstance(trained, int) else trained[0]) * factor
        if size % 8 or size % factor:
            raise UserError(f"size {size} does not divide into latents; give a multiple of {max(8, factor)}")
        self.latent_shape = (made.unet.config.in_channels, size // factor, size // factor)
        self.image_shape = (made.vae.config.out_channels, size, size)

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self._made.tokenizer
        tokens = tokenizer(text, truncation=False).input_ids
        if len(tokens) > tokenizer.model_max_length:
            raise UserError(
                f"the prompt has {len(tokens)} tokens, the pipeline reads {tokenizer.model_max_length}; shorten it"
            )
        return tokens

    @property
    def conditions(self) -> dict[str, Any]:
        """Prompt and negative prompt, which two models must share to be compared."""
        return {"prompt": self.prompt, "negative_prompt": self.negative_prompt}

    def sampler_record(self, sampler: Sampler | None = None) -> dict[str, Any]:
        """Returns the scheduler with its settings and the number of steps."""
        return scheduler_record(self._made.scheduler, self.steps)

    def fingerprint(self) -> str:
        """Computes the SHA-256 over the settings, the scheduler, the prompts as token numbers, and every weight."""
        settings = {"scheduler": self.sampler_record(), "tokens": self.tokens, "model": fingerprint_of(self)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def check_drawing(self, sampler: Sampler | None = None, guidance: float = 1.0) -> None:
        """Refuses another sampler or scale: this model has arguments of its own for both."""
        if sampler is not None:
            raise UserError("TextToImage samples with a scheduler; name it: --model.scheduler DDIM")
        if guidance != 1:
            raise UserError(f"TextToImage has a scale of its own; type --model.guidance {guidance:g}")

    def guidance_of(self, scale: float) -> float:
        """Returns the model's own scale, under which all its images are drawn."""
        return self.guidance

    @torch.no_grad()
    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws images (n, 3, H, W) in [-1, 1] from numbered latents; a few at a time, for they are large."""
        parts = noise.draw(self.latent_shape).split(_AT_A_TIME)
        return torch.cat([self._images(part.to(self.device, self.unet.dtype)) for part in parts])

    def _images(self, latents: Tensor) -> Tensor:
        count, (_, height, width) = len(latents), self.image_shape
        drawn = self._made(
            prompt=[self.prompt] * count,
            negative_prompt=[self.negative_prompt] * count,
            latents=latents,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            eta=0.0,
            height=height,
            width=width,
            output_type="pt",
        )
        return drawn.images.mul(2).sub(1)
