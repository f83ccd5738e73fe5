"""DiT: a transformer over patches whose norms are modulated by time and label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError
from repro.networks.base import Network, one_of
from repro.networks.layers.embeddings import PositionalEmbedding
from repro.networks.layers.tokens import (
    Attention,
    FeedForward,
    LabelEmbedding,
    PatchEmbedding,
    check_tokens,
    sincos_positions,
    two_layers,
    unpatch,
)

__all__ = ["DiT", "guided_output"]

_FREQUENCIES = 256
_NORM_EPS = 1e-6


def _modulated_norm(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=_NORM_EPS)
    return normed * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and feed-forward with shift, scale and gate from the condition (adaLN-zero)."""

    def __init__(self, width: int, heads: int, hidden: int, gelu: str) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, heads)
        self.mlp = FeedForward(width, hidden, gelu)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Transforms tokens (B, L, width) under condition (B, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(condition)).chunk(6, dim=1)
        tokens = tokens + gate_a[:, None] * self.attention(_modulated_norm(tokens, shift_a, scale_a))
        return tokens + gate_m[:, None] * self.mlp(_modulated_norm(tokens, shift_m, scale_m))


class Head(nn.Module):
    """Modulated norm and map of each token to its patch."""

    def __init__(self, width: int, patch_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.projection = nn.Linear(width, patch_channels)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Computes patches (B, L, p p C) of tokens (B, L, width) under condition (B, width)."""
        shift, scale = self.modulation(F.silu(condition)).chunk(2, dim=1)
        return self.projection(_modulated_norm(tokens, shift, scale))


class DiT(Network):
    r"""Diffusion transformer with adaLN-zero conditioning and fixed sine-cosine positions.

    The condition is the embedded time, plus the label's row of a table. Two settings of the multistage code base
    are included: no classes (time only, with ``gelu="exact"``), and ``time_classes`` = K > 0, where the condition is
    the row :math:`\lfloor \text{noise\_level} / 999 \cdot (K - 1) \rfloor` of a table instead of the embedded time.

    The default sizes are those of DiT-XL/2 (675 M parameters). Published sizes (width, depth, heads):
    S (384, 12, 6), B (768, 12, 12), L (1024, 24, 16), XL (1152, 28, 16).

    Args:
        image_size: Pixels (or latent cells) a side, or [height, width]; multiples of ``patch_size``.
        channels: Channels of the images.
        num_classes: Number of classes; 0 or None is an unconditional network.
        patch_size: Pixels a side of a patch.
        width: Channels of a token, a multiple of ``heads`` and of 4.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Channels inside the feed-forward layers over ``width``.
        null_class: Whether a conditional network also answers without labels; always so with ``label_dropout``.
        label_dropout: Probability of dropping a label in training.
        learn_sigma: Whether the network has as many outputs again, which only :meth:`full` returns.
        gelu: "tanh" or "exact".
        time_classes: Number of classes into which time is cut, 0 for embedded time.
        recompute: Whether to recompute the blocks in the backward pass instead of storing their activations.
        guided_channels: How many leading channels classifier-free guidance pushes, for a network with classes. None,
            the default, is all; the sampler of the published models, on latents of 4 channels, has 3.

    Raises:
        UserError: sizes that do not divide, or an unknown option.

    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3; Zhang et al. 2024, arXiv:2312.09181 (the two settings).

    Example:
        >>> network = DiT(image_size=8, channels=3, num_classes=10, width=32, depth=1, heads=4)
        >>> network(torch.ones(2, 3, 8, 8), torch.tensor([1.0, 500.0]), torch.tensor([0, 9])).abs().max().item()
        0.0
    """

    later_arguments: ClassVar[frozenset[str]] = frozenset({"guided_channels"})

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        patch_size: int = 2,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        null_class: bool = False,
        label_dropout: float = 0.0,
        learn_sigma: bool = False,
        gelu: str = "tanh",
        time_classes: int = 0,
        recompute: bool = False,
        guided_channels: int | None = None,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        if guided_channels is not None and not (self.num_classes and 0 < guided_channels <= self.image_shape[0]):
            raise UserError(
                f"DiT: guided_channels is {guided_channels}; give 1 to {self.image_shape[0]}, of a network with classes"
            )
        self.guided_channels = guided_channels
        check_tokens("DiT", self.image_shape[1:], patch_size, width, heads)
        one_of("gelu of DiT", gelu, ("tanh", "exact"))
        if time_classes < 0 or time_classes == 1:
            raise UserError(f"DiT: time_classes is {time_classes}; give 0 for embedded time, or at least 2")
        self.patch_size, self.recompute = patch_size, recompute
        self.patches = PatchEmbedding(patch_size, self.image_shape[0], width)
        self.register_buffer(
            "position", sincos_positions([side // patch_size for side in self.image_shape[1:]], width)[None]
        )
        self.time_embedding = PositionalEmbedding(_FREQUENCIES, endpoint=False, sine_first=False)
        self.time_table = nn.Embedding(time_classes, width) if time_classes else None
        self.time_mlp = None if time_classes else two_layers(_FREQUENCIES, width, width)
        self.settle_null_class(null_class, label_dropout)
        self.labels = LabelEmbedding(num_classes, width, null_class, label_dropout) if num_classes else None
        self.blocks = nn.ModuleList(Block(width, heads, int(width * mlp_ratio), gelu) for _ in range(depth))
        self.head = Head(width, patch_size**2 * self.image_shape[0] * (2 if learn_sigma else 1))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for layer in () if self.time_mlp is None else (self.time_mlp[0], self.time_mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in [block.modulation for block in self.blocks] + [self.head.modulation, self.head.projection]:
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicts images (B, C, H, W), leaving out the channels of the learned variance.

        Args:
            x: Scaled noisy images, shape (B, C, H, W).
            noise_level: Time step, 0 .. 999, whole or not, shape (B,).
            labels: Classes (``num_classes`` itself is the null class, where there is one), int64, shape (B,), or None.

        Returns:
            Shape (B, C, H, W).
        """
        return self.full(x, noise_level, labels)[:, : self.image_shape[0]]

    def full(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """As :meth:`forward` with all output channels: (B, 2 C, H, W) when the variance is learned."""
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x), self.has_null_class)
        tokens = self.patches(x) + self.position
        condition = self._condition(noise_level, labels)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, condition, use_reentrant=False)
            else:
                tokens = block(tokens, condition)
        return unpatch(self.head(tokens, condition), self.patch_size, self.image_shape[1:])

    def _condition(self, noise_level: Tensor, labels: Tensor | None) -> Tensor:
        if self.time_table is not None:
            condition = self.time_table((noise_level / 999 * (self.time_table.num_embeddings - 1)).long())
        else:
            assert self.time_mlp is not None, "there is one of the two"
            condition = self.time_mlp(self.time_embedding(noise_level).to(self.position.dtype))
        return condition if self.labels is None else condition + self.labels(labels, len(condition))


def guided_output(
    network: DiT, x: Tensor, noise_level: Tensor, labels: Tensor, scale: float, guided_channels: int = 3
) -> Tensor:
    r"""Computes classifier-free guidance as the reference DiT does it, on the first channels only.

    .. math:: \text{null} + s \, (\text{labelled} - \text{null})

    Args:
        network: A DiT with a null class.
        x: Scaled noisy images, shape (N, C, H, W).
        noise_level: Shape (N,).
        labels: Classes, int64, shape (N,).
        scale: The strength s; 1 is no guidance.
        guided_channels: How many leading channels are guided (3 in the reference, for latents of 4 channels too).

    Returns:
        Shape (2 N, C or 2 C, H, W): the guided channels twice, beside the other channels of the labelled answer (first
        N rows) and of the null answer (last N rows).

    Raises:
        UserError: the network has no null class.
    """
    if not network.has_null_class:
        raise UserError("guidance needs a network with a null class; build it with null_class")
    null = torch.full_like(labels, network.num_classes)
    answer = network.full(torch.cat([x, x]), torch.cat([noise_level, noise_level]), torch.cat([labels, null]))
    labelled, unlabelled = answer[:, :guided_channels].chunk(2)
    guided = unlabelled + scale * (labelled - unlabelled)
    return torch.cat([torch.cat([guided, guided]), answer[:, guided_channels:]], dim=1)
