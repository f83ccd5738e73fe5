"""Latent diffusion: a model that draws latents, with the decoder that makes images of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.models.base import Model
from repro.models.pretrained import autoencoder_in, autoencoder_of
from repro.models.text_to_image import TextToImage
from repro.noise import NoiseStream
from repro.records import complete_record
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
        """Computes images, about [-1, 1], of latents of about unit variance, a few at a time, for they are large.

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


class Decoded(Model):
    """A model of latents and the decoder that turns what it draws into images: DiT, U-ViT at ImageNet's size.

    Noise i is that of the latents. A checkpoint holds both, so it is rebuilt without either file. Needs the extra
    ``diffusers``.

    Args:
        model: The model of latents; on the command line also the path of its checkpoint or run.
        decoder: Folder (or name on the hub) of an ``AutoencoderKL``, or of a pipeline with one. In records it is the
            autoencoder's settings (``config``) with the SHA-256 of its weights (``sha256``).

    Raises:
        UserError: the extra is not installed; a decoder that cannot be read; latents of other channels.

    Example:
        >>> model = Decoded(repro.load("runs/imported/DiT-XL-2-256x256"), "models/sd-vae-ft-ema")  # doctest: +SKIP
        >>> model.sample([0], torch.tensor([207])).shape  # doctest: +SKIP
        torch.Size([1, 3, 256, 256])
    """

    inside = MappingProxyType({"decoder": None})

    def __init__(self, model: Model | str, decoder: str | dict[str, Any]) -> None:
        super().__init__()
        if isinstance(model, str):
            raise UserError(f"Decoded takes a model; read it first: repro.load({model!r})")
        if not isinstance(model, Model) or isinstance(model, Decoded | TextToImage):
            raise UserError(f"a {type(model).__name__} draws no latents; name the run of a model that does")
        if isinstance(decoder, str):
            autoencoder, settings = autoencoder_in(decoder)
            source = model.origin or f"a {type(model).__name__}"
            self.origin = f"{source}, decoded by {decoder} (sha256 {settings['sha256']})"
        else:
            autoencoder, settings = autoencoder_of(decoder), decoder
        complete_record(self, decoder=settings)
        self.model, self.decoder, self.decoder_sha256 = model, Decoder(autoencoder), settings["sha256"]
        channels, height, width = model.image_shape
        if channels != self.decoder.latent_channels:
            raise UserError(
                f"the model draws {channels} channels, the decoder takes latents of {self.decoder.latent_channels}; "
                "name a model of latents, or the autoencoder that it was trained on"
            )
        factor = self.decoder.factor
        self.image_shape, self.num_classes = (self.decoder.channels, factor * height, factor * width), model.num_classes
        self.sampler = model.sampler

    @property
    def takes_no_labels(self) -> bool:
        """True: the model of latents samples without labels too."""
        return self.model.takes_no_labels

    def check_drawing(self, sampler: Sampler | None = None, guidance: float = 1.0) -> None:
        """Raises UserError when the model of latents cannot be drawn from so."""
        self.model.check_drawing(sampler, guidance)

    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws numbered latents and decodes them: float images (n, C, H, W)."""
        return self.decoder(self.model.generate(noise, labels, sampler, guidance))
