"""U-ViT: a transformer over patches, time and label as tokens, with long skip connections; one or several decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.errors import UserError
from repro.networks.base import Network, one_of
from repro.networks.layers.embeddings import PositionalEmbedding
from repro.networks.layers.stages import Stages
from repro.networks.layers.tokens import (
    Attention,
    FeedForward,
    LabelEmbedding,
    PatchEmbedding,
    check_tokens,
    two_layers,
    unpatch,
)

__all__ = ["UViT"]

_NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Block(nn.Module):
    """Pre-norm attention and feed-forward; with ``merged`` the tokens are first joined with those of a long skip.

    Args:
        width: Channels of a token.
        heads: Attention heads.
        hidden: Channels inside the feed-forward layer.
        qkv_bias: Whether queries, keys and values have a bias.
        norm: "layer" or "rms".
        norm_eps: Added to the variance inside the norms.
        merged: Channels of the tokens and the skip together, or None for a block without a skip.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, qkv_bias: bool, norm: str, norm_eps: float, merged: int | None = None
    ) -> None:
        super().__init__()
        self.merge = nn.Linear(merged, width) if merged else None
        self.attention_norm = _NORMS[norm](width, eps=norm_eps)
        self.attention = Attention(width, heads, qkv_bias)
        self.mlp_norm = _NORMS[norm](width, eps=norm_eps)
        self.mlp = FeedForward(width, hidden)

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """Computes tokens (B, L, d) -> (B, L, width)."""
        if self.merge is not None:
            tokens = self.merge(torch.cat([tokens, skip], dim=-1))
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class Decoder(nn.Module):
    """The out-going half: blocks that consume the long skips, last norm, map of each token to its patch."""

    def __init__(self, blocks: Sequence[Block], norm: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head


class UViT(Network):
    r"""U-ViT, and its multistage form with one encoder and several decoders.

    The tokens are [label,] time, patches. The encoder has ``depth // 2`` blocks and a middle one; each decoder has
    ``depth // 2`` blocks, the k-th of which is joined with the output of the k-th last encoder block. With
    ``decoder_widths`` there are several decoders: the range of noise levels is cut at ``boundaries`` into intervals,
    open below and closed above, and every image of a batch goes through the decoder of its own interval. The published
    three stages for VP are ``decoder_widths=[768, 512, 128], boundaries=[442.0, 630.8]`` with noise levels 999 t.

    The default sizes are those of U-ViT-S/2 for CIFAR-10 (44 M parameters).

    Args:
        image_size: Pixels a side, or [height, width]; multiples of ``patch_size``.
        channels: Channels of the images.
        num_classes: Number of classes; 0 or None is an unconditional network.
        patch_size: Pixels a side of a patch.
        width: Channels of a token in the encoder, a multiple of ``heads``.
        depth: Blocks apart from the middle one, half of them in the encoder (an odd one is dropped).
        heads: Attention heads.
        mlp_ratio: Channels inside the feed-forward layers over ``width``.
        qkv_bias: Whether queries, keys and values have a bias.
        time_mlp: Whether the sinusoidal time embedding goes through a two-layer MLP.
        long_skips: Whether encoder and decoder blocks are joined; several decoders need it.
        final_conv: Whether a 3x3 convolution follows on the image.
        norm: "layer" or "rms".
        norm_eps: Added to the variance inside the norms.
        label_embedding: "table", or "mlp" for a two-layer MLP on the one-hot label.
        null_class: Whether a conditional network also answers without labels; always so with ``label_dropout``.
        label_dropout: Probability of dropping a label in training.
        decoder_widths: Channels of each decoder, multiples of ``heads``; None is one decoder of ``width`` channels.
        boundaries: Noise levels between the intervals, ascending.
        interval_decoders: Which decoder each interval uses; None: one decoder for each, in order.
        recompute: Whether to recompute the blocks in the backward pass instead of storing their activations.

    Raises:
        UserError: sizes that do not divide, boundaries that do not fit the decoders, or an unknown option.

    Source: Bao et al. 2023, arXiv:2209.12152, section 3; Zhang et al. 2024, arXiv:2312.09181 (multistage).

    Example:
        >>> network = UViT(image_size=8, channels=1, patch_size=2, width=32, depth=2, heads=4)
        >>> network(torch.zeros(3, 1, 8, 8), torch.tensor([1.0, 10.0, 500.0])).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        patch_size: int = 2,
        width: int = 512,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        time_mlp: bool = False,
        long_skips: bool = True,
        final_conv: bool = True,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        label_embedding: str = "table",
        null_class: bool = False,
        label_dropout: float = 0.0,
        decoder_widths: Sequence[int] | None = None,
        boundaries: Sequence[float] = (),
        interval_decoders: Sequence[int] | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        one_of("norm of UViT", norm, _NORMS)
        one_of("label_embedding of UViT", label_embedding, ("table", "mlp"))
        for each in (width, *(decoder_widths or ())):
            check_tokens("UViT", self.image_shape[1:], patch_size, each, heads)
        widths = [width] if decoder_widths is None else list(decoder_widths)
        if widths != [width] and (not long_skips or depth < 2):
            raise UserError(f"UViT: decoders of widths {widths} on a width of {width} need long_skips and depth >= 2")
        self.multistage = decoder_widths is not None
        self.stages = Stages(len(widths), boundaries, interval_decoders)
        self.patch_size, self.recompute = patch_size, recompute

        def block(size: int, merged: int | None = None) -> Block:
            return Block(size, heads, int(size * mlp_ratio), qkv_bias, norm, norm_eps, merged)

        def decoder(size: int) -> Decoder:
            entering = [width] + [size] * (depth // 2 - 1)
            blocks = [block(size, from_below + width if long_skips else None) for from_below in entering[: depth // 2]]
            return Decoder(
                blocks, _NORMS[norm](size, eps=norm_eps), nn.Linear(size, patch_size**2 * self.image_shape[0])
            )

        self.patches = PatchEmbedding(patch_size, self.image_shape[0], width)
        self.time_embedding = PositionalEmbedding(width, endpoint=False, sine_first=False)
        self.time_mlp = two_layers(width, 4 * width, width) if time_mlp else nn.Identity()
        self.settle_null_class(null_class, label_dropout)
        self.labels = None
        if num_classes:
            self.labels = LabelEmbedding(num_classes, width, null_class, label_dropout, label_embedding)
        self.extras = 2 if self.num_classes else 1
        self.position = nn.Parameter(
            torch.empty(1, self.extras + math.prod(self.image_shape[1:]) // patch_size**2, width)
        )
        self.encoder = nn.ModuleList(block(width) for _ in range(depth // 2))
        self.middle = block(width)
        self.decoders = nn.ModuleList(decoder(size) for size in widths)
        self.final = nn.Conv2d(self.image_shape[0], self.image_shape[0], 3, padding=1) if final_conv else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, stage: int | None = None) -> Tensor:
        """Maps scaled noisy images (B, C, H, W) to images.

        Args:
            x: Scaled noisy images, shape (B, C, H, W).
            noise_level: The time token's argument, shape (B,); 999 t in the reference code.
            labels: Classes, int64, shape (B,), or None.
            stage: One decoder for the whole batch, whatever the noise levels.

        Returns:
            Shape (B, C, H, W).

        Raises:
            UserError: shapes or labels do not fit, or there is no such stage.
        """
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x), self.has_null_class)
        patches = self.stages.run(self._decode, self._encode(x, noise_level, labels), noise_level, stage)
        return self.final(unpatch(patches[:, self.extras :], self.patch_size, self.image_shape[1:]))

    def stage_of(self, noise_level: Tensor) -> Tensor:
        """Returns the decoder that each noise level uses, int64 of the same shape."""
        return self.stages.of(noise_level)

    def _encode(self, x: Tensor, noise_level: Tensor, labels: Tensor | None) -> list[Tensor]:
        patches = self.patches(x)
        extras = [self.time_mlp(self.time_embedding(noise_level).to(self.position.dtype))]
        if self.labels is not None:
            extras.insert(0, self.labels(labels, len(x)))
        tokens = torch.cat([torch.stack(extras, dim=1), patches], dim=1) + self.position
        features = []
        for block in self.encoder:
            tokens = self._run(block, tokens)
            features.append(tokens)
        return [*features, self._run(self.middle, tokens)]

    def _run(self, block: Block, *inputs: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _decode(self, stage: int, features: list[Tensor]) -> Tensor:
        *skips, tokens = features
        decoder = self.decoders[stage]
        for block, skip in zip(decoder.blocks, reversed(skips), strict=True):
            tokens = self._run(block, tokens, skip)
        return decoder.head(decoder.norm(tokens))
