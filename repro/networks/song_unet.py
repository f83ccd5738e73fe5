"""The U-Net family of Song et al.: DDPM, DDPM++, NCSN++ and their EDM forms, as settings of one implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repro.errors import UserError
from repro.networks.base import Network, one_of, sizes_of
from repro.networks.layers.basic import ACTIVATIONS
from repro.networks.layers.blocks import BlockSettings
from repro.networks.layers.embeddings import Conditioning, FourierEmbedding, PositionalEmbedding
from repro.networks.layers.resampling import check_filter
from repro.networks.layers.unet import Decoder, Encoder, Middle

__all__ = ["SongUNet"]


class SongUNet(Network):
    r"""U-Net of DDPM, DDPM++, NCSN++ and EDM.

    The defaults are EDM's DDPM++ network for CIFAR-10 (55.7 million parameters). The published networks of Song et
    al. for 32 x 32 images are these settings:

    ============ =================================================================================================
    DDPM         ``channel_mult=[1, 2, 2, 2], num_blocks=2, resample="conv", resample_filter=None, skip_scale=1,
                 min_group=1, dropout=0.1``
    DDPM++       ``channel_mult=[1, 2, 2, 2], dropout=0.1``; the deep one has ``num_blocks=8``
    NCSN++ (VP)  DDPM++ with ``encoder="residual", resample_filter=[1, 3, 3, 1]``
    NCSN++ (VE)  NCSN++ with ``embedding="fourier", embedding_mult=2, log_noise_level=True,
                 output_division="level", centred=False``
    EDM, ncsnpp  ``embedding="fourier", embedding_mult=2, encoder="residual", resample_filter=[1, 3, 3, 1]``
    ============ =================================================================================================

    Args:
        image_size: Pixels a side, or [height, width]; multiples of 2 to the number of levels less one.
        channels: Colour channels.
        num_classes: Number of classes; 0 or None for unconditional.
        width: Channels after the first convolution, and the unit of ``channel_mult``.
        channel_mult: Channels of every resolution, in units of ``width``, from fine to coarse.
        num_blocks: Residual blocks on every resolution.
        attention_at: Lengths of the (shorter) side of feature maps with attention (the coarsest always has some).
        dropout: Dropout probability in residual blocks.
        embedding: Sines of the noise level at fixed ("positional") or random ("fourier") frequencies.
        embedding_mult: Length of that embedding, in units of ``width``.
        hidden_mult: Length of the embedding that the blocks read, in units of ``width``.
        fourier_scale: Standard deviation of the random frequencies.
        encoder: Second path through the encoder: "standard" (none), "skip" or "residual".
        decoder: Second path through the decoder: "standard" (none), "skip" or "residual".
        combine: How an encoder path of kind "skip" joins: "sum" or "cat".
        resample: What changes the resolution: residual blocks ("block"), convolutions ("conv") or nothing learned
            ("plain").
        resample_filter: Taps of the resampling filter; [1, 1] is mean and nearest neighbour. None: no filter, a
            convolution that halves the resolution has stride 2 and padding below and on the right (DDPM).
        skip_scale: Factor on sums of a path and its shortcut.
        adaptive_scale: Whether the embedding also scales features (FiLM), not only shifts them.
        attention_last: Whether the decoder has attention after the last block of a resolution only, or after each.
        num_heads: Attention heads.
        activation: "silu", "relu", "elu" or "leaky_relu" (slope 0.2).
        max_groups: Largest number of groups of a group normalisation.
        min_group: Smallest number of channels in a group.
        label_dropout: Probability of dropping the label in training, for classifier-free guidance.
        null_class: Whether a conditional network also answers without labels; always so with ``label_dropout``.
        augment_dim: Length of the augmentation vector that ``forward`` takes (EDM: 9), 0 for none.
        out_channels: Channels of the output; None for as many as the images have.
        noise_conditional: Whether the network is told the noise level at all.
        log_noise_level: Whether the embedding sees the logarithm of the noise level.
        output_division: Divides the output by the noise level ("level"), by entry ``floor(noise_level)`` of a
            geometric table from ``sigma_max`` down to ``sigma_min`` ("table"), or not ("none").
        sigma_min: Last entry of that table.
        sigma_max: First entry of that table.
        num_scales: Length of that table.
        centred: False for a network that is fed images in [0, 1] and maps them to [-1, 1] itself.

    Raises:
        UserError: unknown option, size that cannot be halved often enough, widths that do not divide into groups.

    Source: Song et al. 2021, arXiv:2011.13456, appendix H; Ho et al. 2020, arXiv:2006.11239, appendix B;
    Karras et al. 2022, arXiv:2206.00364, table 7.

    Example:
        >>> network = SongUNet(image_size=8, channels=1, width=16, num_blocks=1)
        >>> network(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 1, 8, 8])
    """

    _single_decoder: ClassVar[bool] = True
    middle: Middle | None

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        width: int = 128,
        channel_mult: Sequence[float] = (2, 2, 2),
        num_blocks: int = 4,
        attention_at: Sequence[int] = (16,),
        dropout: float = 0.13,
        embedding: Literal["positional", "fourier"] = "positional",
        embedding_mult: int = 1,
        hidden_mult: int = 4,
        fourier_scale: float = 16.0,
        encoder: Literal["standard", "skip", "residual"] = "standard",
        decoder: Literal["standard", "skip", "residual"] = "standard",
        combine: Literal["sum", "cat"] = "sum",
        resample: Literal["block", "conv", "plain"] = "block",
        resample_filter: Sequence[float] | None = (1, 1),
        skip_scale: float = math.sqrt(0.5),
        adaptive_scale: bool = False,
        attention_last: bool = True,
        num_heads: int = 1,
        activation: Literal["silu", "relu", "elu", "leaky_relu"] = "silu",
        max_groups: int = 32,
        min_group: int = 4,
        label_dropout: float = 0.0,
        null_class: bool = False,
        augment_dim: int = 0,
        out_channels: int | None = None,
        noise_conditional: bool = True,
        log_noise_level: bool = False,
        output_division: Literal["none", "level", "table"] = "none",
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        num_scales: int = 1000,
        centred: bool = True,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        self.sizes = sizes_of(type(self).__name__, self.image_shape[1:], channel_mult)
        self.channel_mult = tuple(channel_mult)
        self.embedding_kind = one_of("embedding", embedding, ("positional", "fourier"))
        one_of("encoder", encoder, ("standard", "skip", "residual"))
        self.output_path = one_of("decoder", decoder, ("standard", "skip", "residual"))
        one_of("combine", combine, ("sum", "cat"))
        self.output_division = one_of("output_division", output_division, ("none", "level", "table"))
        if self.num_classes and not noise_conditional:
            raise UserError("a conditional network needs noise_conditional=True: classes enter with the noise level")
        self.num_blocks = num_blocks
        self.attention_at = tuple(attention_at)
        self.attention_last = attention_last
        self.out_channels = self.image_shape[0] if out_channels is None else out_channels
        self.settle_null_class(null_class, label_dropout)
        self.log_noise_level = log_noise_level
        self.table = (sigma_max, sigma_min, num_scales)
        self.centred = centred
        self.settings = BlockSettings(
            embedding=hidden_mult * width if noise_conditional else 0,
            dropout=dropout,
            activation=one_of("activation", activation, ACTIVATIONS),
            max_groups=max_groups,
            min_group=min_group,
            eps=1e-6,
            skip_scale=skip_scale,
            adaptive_scale=adaptive_scale,
            resample=one_of("resample", resample, ("block", "conv", "plain")),
            resample_filter=check_filter(resample_filter),
            symmetric_stride=False,
            resample_shortcut=True,
            num_heads=num_heads,
            channels_per_head=1,
            scheme="xavier",
            shortcut_gain=1.0 if resample == "block" else math.sqrt(0.1),
            attention_gain=math.sqrt(0.2),
            zero_gain=1e-5,
        )
        self.conditioning = None
        if noise_conditional:
            length = width * embedding_mult
            self.conditioning = Conditioning(
                PositionalEmbedding(length) if embedding == "positional" else FourierEmbedding(length, fourier_scale),
                self.settings.embedding,
                self.num_classes,
                augment_dim,
                label_dropout,
                late_labels=False,
                activation=activation,
                scheme="xavier",
            )
        widths = [int(width * mult) for mult in channel_mult]
        self.encoder = Encoder(
            self.settings,
            self.image_shape[0],
            width,
            widths,
            self.sizes,
            num_blocks,
            self.attention_at,
            encoder,
            combine,
        )
        if self._single_decoder:
            self.middle = Middle(self.settings, self.encoder.out_channels)
            self.decoder = self._build_decoder(width)

    def _build_decoder(self, width: int) -> Decoder:
        return Decoder(
            self.settings,
            self.encoder.out_channels,
            self.out_channels,
            [int(width * mult) for mult in self.channel_mult],
            self.sizes,
            self.encoder.skip_channels,
            self.num_blocks,
            self.attention_at,
            self.attention_last,
            path=self.output_path,
        )

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Maps scaled noisy images to images.

        Args:
            x: Shape (B, C, H, W).
            noise_level: Shape (B,).
            labels: Classes, int64 (B,); ``num_classes`` stands for "none" where the network answers without labels.
            augment_labels: Augmentation vectors (B, augment_dim) or None.

        Returns:
            Images of shape (B, out_channels, H, W).

        Raises:
            UserError: shapes or labels do not fit.
        """
        x, embedding = self._prepare(x, noise_level, labels, augment_labels)
        x, skips = self.encoder(x, embedding)
        assert self.middle is not None, "only networks of several decoders have none"
        return self._divide(self.decoder(self.middle(x, embedding), skips, embedding), noise_level)

    def _prepare(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None, augment_labels: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x), self.has_null_class)
        embedding = None
        if self.conditioning is not None:
            level = noise_level.log() if self.log_noise_level else noise_level
            embedding = self.conditioning(level, labels, augment_labels)
        return (x if self.centred else 2 * x - 1), embedding

    def _divide(self, x: Tensor, noise_level: Tensor) -> Tensor:
        if self.output_division == "none":
            return x
        sigma = noise_level
        if self.output_division == "table":
            first, last, count = self.table
            sigma = first * (last / first) ** (torch.floor(noise_level) / (count - 1))
        return x / sigma.to(x.dtype)[:, None, None, None]
