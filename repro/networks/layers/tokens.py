"""Layers that the transformers share: images to tokens and back, attention, feed-forward, label vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from repro.errors import UserError

__all__ = [
    "Attention",
    "FeedForward",
    "LabelEmbedding",
    "PatchEmbedding",
    "check_tokens",
    "sincos_positions",
    "two_layers",
    "unpatch",
]


def check_tokens(name: str, image_size: Sequence[int], patch_size: int, width: int, heads: int) -> None:
    """Refuses sizes from which no tokens can be cut.

    Args:
        name: The network's name, for the message.
        image_size: Height and width in pixels.
        patch_size: Pixels a side of one patch; must divide both.
        width: Channels of a token; must be a multiple of ``heads``.
        heads: Attention heads.

    Raises:
        UserError: one of the two does not divide.
    """
    height, width_of_image = image_size
    common = math.gcd(height, width_of_image)
    if patch_size < 1 or common % patch_size:
        legal = [size for size in range(1, common + 1) if common % size == 0]
        size = height if height == width_of_image else f"{height}x{width_of_image}"
        raise UserError(
            f"{name}: patch_size {patch_size} does not divide image_size {size}; "
            f"give one of {', '.join(map(str, legal))}"
        )
    if heads < 1 or width % heads:
        raise UserError(f"{name}: width {width} is not a multiple of heads {heads}; give a width such as {heads * 32}")


class PatchEmbedding(nn.Module):
    """Cuts an image into square patches and maps each to a token.

    Args:
        patch_size: Pixels a side of one patch.
        channels: Channels of the image.
        width: Channels of a token.
    """

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Computes tokens (B, h w, width), row by row, of images (B, C, H, W)."""
        return rearrange(self.projection(images), "b d h w -> b (h w) d")


def unpatch(tokens: Tensor, patch_size: int, image_size: Sequence[int]) -> Tensor:
    """Puts patches (B, h w, p p C) together to images (B, C, H, W) of a height and width.

    Example:
        >>> unpatch(torch.arange(8.0).view(1, 4, 2), 1, (2, 2))[0, 1].tolist()
        [[1.0, 3.0], [5.0, 7.0]]
    """
    rows = image_size[0] // patch_size
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch_size, q=patch_size)


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection, channels ordered (query/key/value, head, channel).

    Args:
        width: Channels of a token, a multiple of ``heads``.
        heads: Number of heads.
        qkv_bias: Whether the joint projection has a bias.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mixes tokens by attention, (B, L, width) -> (B, L, width)."""
        query, key, value = rearrange(self.qkv(tokens), "b l (k h d) -> k b h l d", k=3, h=self.heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.projection(rearrange(attended, "b h l d -> b l (h d)"))


class FeedForward(nn.Module):
    """Two linear maps of each token around a GELU.

    Args:
        width: Channels of a token.
        hidden: Channels in between.
        gelu: "exact", or "tanh" for its approximation.
    """

    def __init__(self, width: int, hidden: int, gelu: str = "exact") -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.approximate = "tanh" if gelu == "tanh" else "none"

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps each token, (B, L, width) -> (B, L, width)."""
        return self.outer(F.gelu(self.inner(tokens), approximate=self.approximate))


def two_layers(incoming: int, hidden: int, width: int) -> nn.Sequential:
    """Makes two linear layers with a SiLU in between, (B, incoming) -> (B, width)."""
    return nn.Sequential(nn.Linear(incoming, hidden), nn.SiLU(), nn.Linear(hidden, width))


class LabelEmbedding(nn.Module):
    """One vector for each class and, with a null class, one more for "no label".

    Args:
        num_classes: Number of classes, at least 1.
        width: Length of the vectors.
        null_class: Whether there is a null class; always so with ``label_dropout``.
        label_dropout: Probability that a label is dropped in training.
        kind: "table", or "mlp" for a two-layer MLP on the one-hot label.
    """

    def __init__(
        self, num_classes: int, width: int, null_class: bool = False, label_dropout: float = 0.0, kind: str = "table"
    ) -> None:
        super().__init__()
        self.num_classes, self.label_dropout = num_classes, label_dropout
        self.has_null_class = null_class or label_dropout > 0
        self.rows = num_classes + self.has_null_class
        self.vectors = nn.Embedding(self.rows, width) if kind == "table" else two_layers(self.rows, 4 * width, width)

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """Computes vectors (B, width) of labels (B,), int64; None is the null class for every image."""
        weight = next(self.parameters())
        if labels is None:
            labels = torch.full((batch,), self.num_classes, device=weight.device)
        elif self.training and self.label_dropout:
            dropped = torch.rand(batch, device=labels.device) < self.label_dropout
            labels = torch.where(dropped, self.num_classes, labels)
        if isinstance(self.vectors, nn.Embedding):
            return self.vectors(labels)
        return self.vectors(F.one_hot(labels, self.rows).to(weight.dtype))


def sincos_positions(patches: Sequence[int], width: int) -> Tensor:
    r"""Fixed two-dimensional sine-cosine position table of (rows, columns) of patches, float32, (rows columns, width).

    The first half of the channels encodes the column, the second the row; each half holds sines then cosines of
    the coordinate times :math:`10000^{-4 k / \text{width}}`.

    Source: He et al. 2022, arXiv:2111.06377, section A; used by DiT, arXiv:2212.09748.

    Raises:
        UserError: width is not a multiple of 4.
    """
    if width % 4:
        raise UserError(
            f"width {width} is not a multiple of 4, which sine-cosine positions need; give {width // 4 * 4 + 4}"
        )
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = patches
    angles = torch.arange(max(rows, columns), dtype=torch.float64)[:, None] * rates
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    across, down = table[None, :columns].expand(rows, -1, -1), table[:rows, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).reshape(rows * columns, width).float()
