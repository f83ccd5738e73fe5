"""Encoder, middle and decoder of a U-Net, from which every U-Net of the package is put together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from repro.networks.layers.basic import convolution
from repro.networks.layers.blocks import BlockSettings, Head, ResidualBlock
from repro.networks.layers.resampling import DownConv, Downsample, UpConv, Upsample

__all__ = ["Decoder", "Encoder", "Middle"]


class EncoderLevel(nn.Module):
    """One resolution of the encoder: down-sampling (not on the finest), a second path from the image, blocks.

    Args:
        settings: Shared block settings.
        inputs: Channels from the level above.
        outputs: Channels of this level.
        num_blocks: Residual blocks.
        attention: Whether attention follows every block.
        first: Whether this is the finest level.
        path: "standard": none; "skip": the down-sampled image through a 1 x 1 convolution; "residual": a chain of
            down-sampling convolutions that starts at the image and is summed with the features.
        path_inputs: Channels of that path above this level.
        combine: How the skip path joins: "sum" or "cat".
    """

    def __init__(
        self,
        settings: BlockSettings,
        inputs: int,
        outputs: int,
        num_blocks: int,
        attention: bool,
        first: bool,
        path: str,
        path_inputs: int,
        combine: str,
    ) -> None:
        super().__init__()
        self.down = None if first else settings.down(inputs)
        self.path_down = self.path_in = None
        if not first and path == "skip":
            self.path_down = Downsample(settings.resample_filter)
            self.path_in = convolution(path_inputs, inputs, 1, settings.scheme)
        elif not first and path == "residual":
            self.path_down = DownConv(path_inputs, inputs, settings.resample_filter, scheme=settings.scheme)
        self.cat = combine == "cat" and self.path_in is not None
        self.skip_scale = settings.skip_scale
        channels = inputs * 2 if self.cat else inputs
        self.skip_channels = [] if first else [channels]
        self.blocks = nn.ModuleList()
        for _ in range(num_blocks):
            self.blocks.append(ResidualBlock(settings, channels, outputs, attention))
            channels = outputs
            self.skip_channels.append(channels)

    def forward(self, x: Tensor, path: Tensor, embedding: Tensor | None, skips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps features and path of the level above to those of this one; appends to ``skips``."""
        if self.down is not None:
            x = self.down(x, embedding) if isinstance(self.down, ResidualBlock) else self.down(x)
            if self.path_down is not None:
                path = self.path_down(path)
                if self.path_in is None:
                    x = path = (x + path) * self.skip_scale
                elif self.cat:
                    x = torch.cat([self.path_in(path), x], dim=1)
                else:
                    x = x + self.path_in(path)
            skips.append(x)
        for block in self.blocks:
            x = block(x, embedding)
            skips.append(x)
        return x, path


class Encoder(nn.Module):
    """The down-sampling half of a U-Net.

    Args:
        settings: Shared block settings.
        channels: Colour channels of the images.
        stem: Channels after the first convolution.
        widths: Channels of every level, from fine to coarse.
        sizes: Side length of the feature maps of every level.
        num_blocks: Residual blocks on every level.
        attention_at: Side lengths at which attention follows every block.
        path: See :class:`EncoderLevel`.
        combine: See :class:`EncoderLevel`.
    """

    def __init__(
        self,
        settings: BlockSettings,
        channels: int,
        stem: int,
        widths: Sequence[int],
        sizes: Sequence[int],
        num_blocks: int,
        attention_at: Collection[int],
        path: str = "standard",
        combine: str = "sum",
    ) -> None:
        super().__init__()
        self.stem = convolution(channels, stem, 3, settings.scheme)
        self.levels = nn.ModuleList()
        self.skip_channels = [stem]
        features, path_channels = stem, channels
        for depth, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            level = EncoderLevel(
                settings, features, width, num_blocks, size in attention_at, depth == 0, path, path_channels, combine
            )
            if path == "residual" and depth:
                path_channels = features
            self.levels.append(level)
            self.skip_channels += level.skip_channels
            features = self.skip_channels[-1]
        self.out_channels = features

    def forward(self, x: Tensor, embedding: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Maps images (B, C, H, W) to the coarsest features and all features that the decoder will read, in order."""
        path = x
        x = self.stem(x)
        skips = [x]
        for level in self.levels:
            x, path = level(x, path, embedding, skips)
        return x, skips


class Middle(nn.Module):
    """Two residual blocks on the coarsest level, attention after the first.

    Args:
        settings: Shared block settings.
        channels: Channels in and out.
    """

    def __init__(self, settings: BlockSettings, channels: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(settings, channels, channels, attention=True)
        self.block2 = ResidualBlock(settings, channels, channels)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Maps features to features of the same shape."""
        return self.block2(self.block1(x, embedding), embedding)


class DecoderLevel(nn.Module):
    """One resolution of the decoder: up-sampling (not on the coarsest), blocks that read the encoder, outputs.

    Args:
        settings: Shared block settings.
        inputs: Channels from the level below.
        outputs: Channels of this level.
        skip_channels: Channels of the encoder's features in the order in which the blocks read them.
        attention: Which blocks attention follows, "all", "last" or "none".
        coarsest: Whether this is the first level of the decoder.
        finest: Whether this is the last.
        images: Channels of the output.
        path: "standard": one head on the finest level; "skip": a head on every level, their images up-sampled and
            summed; "residual": a chain of up-sampling convolutions, summed with the features of every level.
        path_inputs: Channels of the residual path below this level.
    """

    def __init__(
        self,
        settings: BlockSettings,
        inputs: int,
        outputs: int,
        skip_channels: Sequence[int],
        attention: str,
        coarsest: bool,
        finest: bool,
        images: int,
        path: str,
        path_inputs: int,
    ) -> None:
        super().__init__()
        self.up = None if coarsest else settings.up(inputs)
        self.blocks = nn.ModuleList()
        channels = inputs
        for index, skip in enumerate(skip_channels):
            attends = attention == "all" or (attention == "last" and index == len(skip_channels) - 1)
            self.blocks.append(ResidualBlock(settings, channels + skip, outputs, attends))
            channels = outputs
        self.path_up = self.path_out = self.head = None
        if path == "skip" and not coarsest:
            self.path_up = Upsample(settings.resample_filter)
        if path == "residual" and coarsest:
            self.path_out = Head(settings, outputs, outputs, gain=1.0)
        elif path == "residual":
            self.path_up = UpConv(path_inputs, outputs, settings.resample_filter, settings.scheme)
        if finest or path == "skip":
            self.head = Head(settings, outputs, images, settings.zero_gain)
        self.skip_scale = settings.skip_scale

    def forward(
        self, x: Tensor, path: Tensor | None, embedding: Tensor | None, skips: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Maps features and path of the level below to those of this one; takes from the end of ``skips``."""
        if self.up is not None:
            x = self.up(x, embedding) if isinstance(self.up, ResidualBlock) else self.up(x)
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        if self.path_up is not None:
            path = self.path_up(path)
        if self.path_out is not None:
            path = self.path_out(x)
        elif isinstance(self.path_up, UpConv):
            x = path = (path + x) * self.skip_scale
        if self.head is not None:
            image = self.head(x)
            path = image + path if isinstance(self.path_up, Upsample) else image
        return x, path


class Decoder(nn.Module):
    """The up-sampling half of a U-Net.

    Args:
        settings: Shared block settings.
        inputs: Channels of the coarsest features.
        channels: Channels of the output.
        widths: Channels of every level, from fine to coarse.
        sizes: Side length of the feature maps of every level.
        skip_channels: Channels of the features that the encoder hands over, in its order.
        num_blocks: Residual blocks on every level, one less than the decoder has.
        attention_at: Side lengths with attention.
        attention_last: Whether attention follows only the last block of a level, or every block.
        path: See :class:`DecoderLevel`.
    """

    def __init__(
        self,
        settings: BlockSettings,
        inputs: int,
        channels: int,
        widths: Sequence[int],
        sizes: Sequence[int],
        skip_channels: Sequence[int],
        num_blocks: int,
        attention_at: Collection[int],
        attention_last: bool,
        path: str = "standard",
    ) -> None:
        super().__init__()
        remaining = list(skip_channels)
        coarsest = len(widths) - 1
        features = path_channels = inputs
        self.levels = nn.ModuleList()
        for depth in range(coarsest, -1, -1):
            own = [remaining.pop() for _ in range(num_blocks + 1)]
            attention = "none" if sizes[depth] not in attention_at else "last" if attention_last else "all"
            self.levels.append(
                DecoderLevel(
                    settings, features, widths[depth], own, attention, depth == coarsest, depth == 0,
                    channels, path, path_channels,
                )
            )  # fmt: skip
            features = path_channels = widths[depth]
        assert not remaining

    def forward(self, x: Tensor, skips: Sequence[Tensor], embedding: Tensor | None) -> Tensor:
        """Maps coarsest features, the encoder's features and the embedding to images (B, channels, H, W)."""
        remaining = list(skips)
        path = None
        for level in self.levels:
            x, path = level(x, path, embedding, remaining)
        return path
