"""The residual block and the attention of U-Nets: one implementation for DDPM, DDPM++, NCSN++, EDM and ADM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import UserError
from repro.networks.layers.basic import activation_of, convolution, dropout, group_norm, linear
from repro.networks.layers.resampling import DownConv, Downsample, UpConv, Upsample

__all__ = ["Attention", "BlockSettings", "Head", "ResidualBlock"]


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of one network agree on.

    Args:
        embedding: Length of the embedding vector; 0 for blocks that are not told the noise level.
        dropout: Dropout probability in front of the second convolution, in [0, 1).
        activation: Name of the activation.
        max_groups: Largest number of groups of a group normalisation.
        min_group: Smallest number of channels in a group.
        eps: Added to the variance in group normalisations.
        skip_scale: Factor on every sum of a residual path and its shortcut.
        adaptive_scale: Whether the embedding scales and shifts the second normalisation's result or is added before.
        resample: Where the image size changes: "block" (in a residual block), "conv" (a convolution), "plain".
        resample_filter: Taps of the resampling filter, None for none.
        symmetric_stride: Padding of convolutions with stride 2, see :class:`DownConv`.
        resample_shortcut: Whether a resampling block has a 1 x 1 convolution on its shortcut at equal channels.
        num_heads: Attention heads; None for one per ``channels_per_head``, no attention below that many channels.
        channels_per_head: See ``num_heads``.
        scheme: Initialisation, see :func:`repro.networks.layers.basic.initialise`.
        shortcut_gain: Initial gain of 1 x 1 convolutions on shortcuts.
        attention_gain: Initial gain of the query, key and value layers.
        zero_gain: Initial gain of the last layer of every residual path.
    """

    embedding: int
    dropout: float
    activation: str
    max_groups: int
    min_group: int
    eps: float
    skip_scale: float
    adaptive_scale: bool
    resample: str
    resample_filter: tuple[float, ...] | None
    symmetric_stride: bool
    resample_shortcut: bool
    num_heads: int | None
    channels_per_head: int
    scheme: str
    shortcut_gain: float
    attention_gain: float
    zero_gain: float

    def norm(self, channels: int) -> nn.GroupNorm:
        """Returns a group normalisation over the channels."""
        return group_norm(channels, self.max_groups, self.min_group, self.eps)

    def heads(self, channels: int) -> int:
        """Returns the number of attention heads at a width; 0 where attention is left out."""
        heads = channels // self.channels_per_head if self.num_heads is None else self.num_heads
        if heads and channels % heads:
            raise UserError(f"{channels} channels do not divide into {heads} attention heads; choose another width")
        return heads

    def down(self, channels: int) -> nn.Module:
        """Returns the layer between two encoder levels."""
        if self.resample == "block":
            return ResidualBlock(self, channels, channels, resample=Downsample(self.resample_filter))
        if self.resample == "conv":
            return DownConv(channels, channels, self.resample_filter, self.symmetric_stride, self.scheme)
        return Downsample(self.resample_filter)

    def up(self, channels: int) -> nn.Module:
        """Returns the layer between two decoder levels."""
        if self.resample == "block":
            return ResidualBlock(self, channels, channels, resample=Upsample(self.resample_filter))
        if self.resample == "conv":
            return UpConv(channels, channels, self.resample_filter, self.scheme)
        return Upsample(self.resample_filter)


class Attention(nn.Module):
    """Multi-head self-attention over pixels with a scaled residual sum.

    Args:
        settings: Shared settings.
        channels: Channels in and out; query, key and value are stacked in this order, heads within each.
        heads: Number of heads, at least 1.
    """

    def __init__(self, settings: BlockSettings, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = settings.norm(channels)
        self.qkv = linear(channels, 3 * channels, settings.scheme, settings.attention_gain)
        self.proj = linear(channels, channels, settings.scheme, settings.zero_gain)
        self.heads = heads
        self.skip_scale = settings.skip_scale

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (B, C, H, W) to features of the same shape."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = self.proj(mixed).transpose(1, 2).unflatten(2, x.shape[2:])
        return _scaled_sum(x, h, self.skip_scale)


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice, with the embedding in between; then, where asked for, attention.

    Args:
        settings: Shared settings.
        inputs: Input channels.
        outputs: Output channels.
        attention: Whether attention follows.
        resample: Resampling of both paths, or None.
    """

    def __init__(
        self,
        settings: BlockSettings,
        inputs: int,
        outputs: int,
        attention: bool = False,
        resample: Downsample | Upsample | None = None,
    ) -> None:
        super().__init__()
        scheme = settings.scheme
        self.norm1 = settings.norm(inputs)
        self.conv1 = convolution(inputs, outputs, 3, scheme)
        self.affine = None
        if settings.embedding:
            self.affine = linear(settings.embedding, outputs * (1 + settings.adaptive_scale), scheme)
        self.norm2 = settings.norm(outputs)
        self.conv2 = convolution(outputs, outputs, 3, scheme, settings.zero_gain)
        self.shortcut = None
        if inputs != outputs or (resample is not None and settings.resample_shortcut):
            self.shortcut = convolution(inputs, outputs, 1, scheme, settings.shortcut_gain)
        self.resample = resample
        heads = settings.heads(outputs) if attention else 0
        self.attention = Attention(settings, outputs, heads) if heads else None
        self.activation = activation_of(settings.activation)
        self.adaptive_scale = settings.adaptive_scale
        self.dropout = settings.dropout
        self.skip_scale = settings.skip_scale
        self.shortcut_first = isinstance(resample, Upsample) and resample.box

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Transforms features.

        Args:
            x: Shape (B, inputs, H, W).
            embedding: Activated embedding (B, E), or None for blocks without.

        Returns:
            Features (B, outputs, H', W').
        """
        h = self.activation(self.norm1(x))
        h = self.conv1(h if self.resample is None else self.resample(h))
        h = self._modulate(h, embedding)
        h = self.conv2(dropout(h, self.dropout, self.training))
        x = _scaled_sum(self._shortcut(x), h, self.skip_scale)
        return x if self.attention is None else self.attention(x)

    def _modulate(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        if self.affine is None:
            return self.activation(self.norm2(h))
        parameters = self.affine(embedding).to(h.dtype)[:, :, None, None]
        if not self.adaptive_scale:
            return self.activation(self.norm2(h + parameters))
        scale, shift = parameters.chunk(2, dim=1)
        return self.activation(self.norm2(h) * (scale + 1) + shift)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.shortcut is not None and self.shortcut_first:
            x = self.shortcut(x)
        if self.resample is not None:
            x = self.resample(x)
        if self.shortcut is not None and not self.shortcut_first:
            x = self.shortcut(x)
        return x


class Head(nn.Module):
    """Norm, activation and a 3 x 3 convolution: from features to an image.

    Args:
        settings: Shared settings.
        inputs: Channels of the features.
        outputs: Channels of the image.
        gain: Initial gain of the convolution.
    """

    def __init__(self, settings: BlockSettings, inputs: int, outputs: int, gain: float) -> None:
        super().__init__()
        self.norm = settings.norm(inputs)
        self.conv = convolution(inputs, outputs, 3, settings.scheme, gain)
        self.activation = activation_of(settings.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (B, inputs, H, W) to images (B, outputs, H, W)."""
        return self.conv(self.activation(self.norm(x)))


def _scaled_sum(x: Tensor, h: Tensor, scale: float) -> Tensor:
    return x + h if scale == 1 else (x + h).mul_(scale)
