"""Latent diffusion: a model that draws latents, with the decoder that makes images of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from repro.checkpoints.loading import load_module
from repro.errors import UserError
from repro.models.base import GenerativeModule
from repro.models.text_to_image import TextToImage
from repro.noise import NoiseStream
from repro.registry import settle
from repro.released.pretrained import autoencoder_in, autoencoder_of
from repro.samplers.base import Sampler

__all__ = ["Decoded", "Decoder"]

_AT_A_TIME = 8


class Decoder(nn.Module):
    """The decoding half of an ``AutoencoderKL`` of diffusers: latents as models draw them to images.

    Args:
        autoencoder: The autoencoder.

    Raises:
        UserError: latents that are not one scale and shift away from those of models.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        config = autoencoder.config
        if config.latents_mean is not None or config.latents_std is not None:
            raise UserError("the decoder's latents have a mean and deviation for each channel; no model here has such")
        self.decoder, self.post_quant_conv = autoencoder.decoder, autoencoder.post_quant_conv
        self.scale, self.shift = config.scaling_factor, config.shift_factor or 0.0
        self.channels, self.latent_channels = config.out_channels, config.latent_channels
        self.factor = 2 ** (len(config.block_out_channels) - 1)

    @torch.no_grad()
    def forward(self, latents: Tensor) -> Tensor:
        """Images, about [-1, 1], of latents of about unit variance, a few at a time, for they are large.

        Args:
            latents: Shape (B, ``latent_channels``, h, w).

        Returns:
            Shape (B, ``channels``, ``factor`` h, ``factor`` w).
        """
        weight = next(self.decoder.parameters())
        parts = (latents.to(weight) / self.scale + self.shift).split(_AT_A_TIME)
        return torch.cat(
            [self.decoder(part if self.post_quant_conv is None else self.post_quant_conv(part)) for part in parts]
        )


class Decoded(GenerativeModule):
    """A model of latents and the decoder that turns what it draws into images: DiT, U-ViT at ImageNet's size.

    Noise i is that of the latents. The checkpoint holds both, so it is rebuilt without either file. Needs the extra
    ``diffusers``.

    Args:
        model: The model of latents, or the path of its checkpoint or run.
        decoder: Folder (or name on the hub) of an ``AutoencoderKL``, or of a pipeline with one. In records it is the
            autoencoder's settings (``config``) with the SHA-256 of its weights (``sha256``).
        weights: Averaged weights of the checkpoint (``ema``) or those of the last step (``raw``).

    Raises:
        UserError: the extra is not installed; a model or decoder that cannot be read; latents of other channels.

    Example:
        >>> model = Decoded("runs/imported/DiT-XL-2-256x256", "models/sd-vae-ft-ema")  # doctest: +SKIP
        >>> model.sample([0], torch.tensor([207])).shape  # doctest: +SKIP
        torch.Size([1, 3, 256, 256])
    """

    trainable: ClassVar[bool] = False

    def __init__(
        self,
        model: GenerativeModule | str,
        decoder: str | dict[str, Any],
        weights: Literal["ema", "raw"] = "ema",
    ) -> None:
        super().__init__()
        read = load_module(model, weights) if isinstance(model, str) else model
        if not isinstance(read, GenerativeModule) or isinstance(read, Decoded | TextToImage):
            raise UserError(f"a {type(read).__name__} draws no latents; name the run of a model that does")
        if isinstance(decoder, str):
            autoencoder, settings = autoencoder_in(decoder)
            source = read.origin or f"a {type(read).__name__}"
            self.origin = f"{source}, decoded by {decoder} (sha256 {settings['sha256']})"
        else:
            autoencoder, settings = autoencoder_of(decoder), decoder
        settle(self, model=read, decoder=settings)
        self.model, self.decoder, self.decoder_sha256 = read, Decoder(autoencoder), settings["sha256"]
        channels, height, width = read.image_shape
        if channels != self.decoder.latent_channels:
            raise UserError(
                f"the model draws {channels} channels, the decoder takes latents of {self.decoder.latent_channels}; "
                "name a model of latents, or the autoencoder that it was trained on"
            )
        factor = self.decoder.factor
        self.image_shape, self.num_classes = (self.decoder.channels, factor * height, factor * width), read.num_classes
        self.sampler, self.guidance = read.sampler, read.guidance

    @property
    def takes_no_labels(self) -> bool:
        """Whether the model of latents samples without labels too."""
        return self.model.takes_no_labels

    def use_sampler(self, sampler: Sampler) -> None:
        """Draws latents from now on with another sampler."""
        self.model.use_sampler(sampler)
        self.sampler = sampler

    def use_guidance(self, scale: float) -> None:
        """Draws latents from now on under guidance."""
        self.model.use_guidance(scale)
        self.guidance = self.model.guidance

    def use_raw_weights(self) -> None:
        """Draws latents from now on with the weights of the last step."""
        self.model.use_raw_weights()

    def generate(self, noise: NoiseStream, labels: Tensor | None = None) -> Tensor:
        """Decoded images of numbered latents."""
        return self.decoder(self.model.generate(noise, labels))
