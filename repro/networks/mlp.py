"""A small residual MLP on flattened images: the denoiser of the quickstart, fast on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from repro.errors import check_at_least
from repro.networks.base import Network
from repro.networks.layers.embeddings import PositionalEmbedding
from repro.networks.layers.tokens import LabelEmbedding, two_layers

__all__ = ["MLP"]

_FREQUENCIES = 64


class Block(nn.Module):
    """Pre-norm residual block: two linear maps of each image's features, the condition added in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.condition = nn.Linear(width, hidden, bias=False)
        self.outer = nn.Linear(hidden, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Transforms features (B, width) under condition (B, width)."""
        return features + self.outer(F.silu(self.inner(self.norm(features)) + self.condition(condition)))


class MLP(Network):
    """Residual MLP on flattened images, conditioned on the noise level and, with classes, on the label.

    It sees every pixel with its own weights, so it suits small images (8x8 to 16x16). Its last layer and the end of
    every block start at zero: a fresh network answers 0.

    Args:
        image_size: Pixels a side, or [height, width].
        channels: Channels of the images.
        num_classes: Number of classes; 0 or None is an unconditional network.
        width: Features of an image between the blocks.
        depth: Residual blocks.
        expansion: Features inside a block over ``width``.
        null_class: Whether a conditional network also answers without labels; always so with ``label_dropout``.
        label_dropout: Probability of dropping a label in training.

    Raises:
        UserError: a size below 1.

    Example:
        >>> import torch
        >>> MLP(image_size=8, channels=1)(torch.ones(2, 1, 8, 8), torch.zeros(2)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        width: int = 128,
        depth: int = 2,
        expansion: int = 2,
        null_class: bool = False,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        check_at_least(1, "MLP", width=width, depth=depth, expansion=expansion)
        pixels = math.prod(self.image_shape)
        self.inner = nn.Linear(pixels, width)
        self.level_embedding = PositionalEmbedding(_FREQUENCIES, endpoint=False, sine_first=False)
        self.level_mlp = two_layers(_FREQUENCIES, width, width)
        self.settle_null_class(null_class, label_dropout)
        self.labels = LabelEmbedding(num_classes, width, null_class, label_dropout) if num_classes else None
        self.blocks = nn.ModuleList(Block(width, width * expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outer = nn.Linear(width, pixels)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps scaled noisy images (B, C, H, W) to images.

        Args:
            x: Scaled noisy images, shape (B, C, H, W).
            noise_level: One number an image, shape (B,).
            labels: Classes, int64, shape (B,), or None.

        Returns:
            Shape (B, C, H, W).
        """
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x), self.has_null_class)
        features = self.inner(x.flatten(1))
        condition = self.level_mlp(self.level_embedding(noise_level).to(self.inner.weight.dtype))
        if self.labels is not None:
            condition = condition + self.labels(labels, len(x))
        condition = F.silu(condition)
        for block in self.blocks:
            features = block(features, condition)
        return self.outer(self.norm(features)).view_as(x)
