"""The U-Net of ADM (guided diffusion), also used by EDM for ImageNet and by the consistency models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from repro.networks.base import Network, one_of, sizes_of
from repro.networks.layers.blocks import BlockSettings
from repro.networks.layers.embeddings import Conditioning, PositionalEmbedding
from repro.networks.layers.resampling import check_filter
from repro.networks.layers.unet import Decoder, Encoder, Middle

__all__ = ["ADM"]


class ADM(Network):
    r"""U-Net of ADM: scaled and shifted normalisation, attention with heads of 64 channels after every block.

    The defaults are EDM's network for ImageNet 64 x 64 (295.9 million parameters with ``num_classes=1000``). The
    consistency models' network for that data is the same with ``min_group=1``.

    Args:
        image_size: Pixels a side, or [height, width]; multiples of 2 to the number of levels less one.
        channels: Colour channels.
        num_classes: Number of classes; 0 or None for unconditional.
        width: Unit of ``channel_mult``.
        channel_mult: Channels of every resolution, in units of ``width``, from fine to coarse.
        num_blocks: Residual blocks on every resolution.
        attention_at: Lengths of the (shorter) side of feature maps with attention (the coarsest always has some).
        dropout: Dropout probability in residual blocks.
        hidden_mult: Length of the embedding that the blocks read, in units of ``width``.
        adaptive_scale: Whether the embedding also scales features (FiLM), not only shifts them.
        channels_per_head: Channels of an attention head. Levels with fewer channels have no attention.
        num_heads: Number of attention heads instead; None to follow ``channels_per_head``.
        num_heads_up: Number of heads in the decoder where it differs from ``num_heads``.
        resample: What changes the resolution: residual blocks ("block"), convolutions ("conv") or nothing learned
            ("plain").
        resample_filter: Taps of the resampling filter; [1, 1] is mean and nearest neighbour.
        max_groups: Largest number of groups of a group normalisation.
        min_group: Smallest number of channels in a group.
        label_dropout: Probability of dropping the label in training, for classifier-free guidance.
        null_class: Whether a conditional network also answers without labels; always so with ``label_dropout``.
        augment_dim: Length of the augmentation vector that ``forward`` takes (EDM: 9), 0 for none.
        out_channels: Channels of the output; None for as many as the images have.
        stem_width: Channels after the first convolution; None for those of the finest resolution.
        eps: Added to the variance in group normalisations.
        symmetric_stride: Whether convolutions with stride 2 (``resample="conv"``) pad on all sides, or below and on the
            right only.
        ddpm_embedding: Whether the sines of the noise level are DDPM's (lowest frequency exactly 1/10000, sines first).

    Raises:
        UserError: unknown option, size that cannot be halved often enough, widths that do not divide into groups or
            heads.

    The U-Net of progressive distillation for CIFAR-10 (60.0 million parameters) is ``width=256, channel_mult=[1, 1, 1],
    num_blocks=3, attention_at=[16, 8], num_heads=1, min_group=1, dropout=0.2, eps=1e-6, ddpm_embedding=True``.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, section 3; Karras et al. 2022, arXiv:2206.00364, table 7;
    Song et al. 2023, arXiv:2303.01469, appendix C; Salimans and Ho 2022, arXiv:2202.00512, appendix E.

    Example:
        >>> import torch
        >>> network = ADM(image_size=8, channels=1, num_classes=10, width=16, channel_mult=[1, 2], num_blocks=1)
        >>> network(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.tensor([3, 7])).shape
        torch.Size([2, 1, 8, 8])
    """

    later_arguments: ClassVar[frozenset[str]] = frozenset({"stem_width", "eps", "symmetric_stride", "ddpm_embedding"})

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        width: int = 192,
        channel_mult: Sequence[float] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attention_at: Sequence[int] = (32, 16, 8),
        dropout: float = 0.1,
        hidden_mult: float = 4,
        adaptive_scale: bool = True,
        channels_per_head: int = 64,
        num_heads: int | None = None,
        num_heads_up: int | None = None,
        resample: Literal["block", "conv", "plain"] = "block",
        resample_filter: Sequence[float] = (1, 1),
        max_groups: int = 32,
        min_group: int = 4,
        label_dropout: float = 0.0,
        null_class: bool = False,
        augment_dim: int = 0,
        out_channels: int | None = None,
        stem_width: int | None = None,
        eps: float = 1e-5,
        symmetric_stride: bool = True,
        ddpm_embedding: bool = False,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        self.sizes = sizes_of("ADM", self.image_shape[1:], channel_mult)
        widths = [int(width * mult) for mult in channel_mult]
        self.out_channels = self.image_shape[0] if out_channels is None else out_channels
        self.settle_null_class(null_class, label_dropout)
        self.conditioning = Conditioning(
            PositionalEmbedding(width, endpoint=ddpm_embedding, sine_first=ddpm_embedding),
            round(hidden_mult * width),
            self.num_classes,
            augment_dim,
            label_dropout,
            late_labels=True,
            activation="silu",
            scheme="fan_in",
        )
        one_of("resample", resample, ("block", "conv", "plain"))
        taps = None if resample == "conv" else check_filter(resample_filter)

        def settings(heads: int | None) -> BlockSettings:
            return BlockSettings(
                embedding=round(hidden_mult * width),
                dropout=dropout,
                activation="silu",
                max_groups=max_groups,
                min_group=min_group,
                eps=eps,
                skip_scale=1.0,
                adaptive_scale=adaptive_scale,
                resample=resample,
                resample_filter=taps,
                symmetric_stride=symmetric_stride,
                resample_shortcut=False,
                num_heads=heads,
                channels_per_head=channels_per_head,
                scheme="fan_in",
                shortcut_gain=1.0,
                attention_gain=1.0,
                zero_gain=0.0,
            )

        down = settings(num_heads)
        up = settings(num_heads if num_heads_up is None else num_heads_up)
        self.encoder = Encoder(
            down, self.image_shape[0], stem_width or widths[0], widths, self.sizes, num_blocks, attention_at
        )
        self.middle = Middle(down, widths[-1])
        self.decoder = Decoder(
            up,
            widths[-1],
            self.out_channels,
            widths,
            self.sizes,
            self.encoder.skip_channels,
            num_blocks,
            attention_at,
            attention_last=False,
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
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x), self.has_null_class)
        embedding = self.conditioning(noise_level, labels, augment_labels)
        x, skips = self.encoder(x, embedding)
        return self.decoder(self.middle(x, embedding), skips, embedding)
