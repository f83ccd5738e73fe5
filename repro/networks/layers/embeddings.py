"""From the noise level (and class, and augmentation) to the embedding vector that every block reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.networks.layers.basic import activation_of, linear

__all__ = ["Conditioning", "FourierEmbedding", "PositionalEmbedding"]


def _exact(x: Tensor) -> Tensor:
    return x.float() if x.device.type == "mps" else x.double()


class PositionalEmbedding(nn.Module):
    r"""Sines and cosines of the noise level at geometrically spaced frequencies.

    .. math:: \omega_k = 10000^{-k / (n - e)}, \quad k = 0, \dots, n - 1, \quad n = \lfloor \text{channels} / 2 \rfloor

    with :math:`e = 1` when the last frequency is to be exactly 1/10000, else 0. Angles are computed in float64.

    Args:
        channels: Length of the embedding; an odd one ends in a zero.
        endpoint: Whether the lowest frequency is exactly 1/10000 (DDPM, DDPM++) or just above it (ADM).
        sine_first: Sines before cosines (DDPM, DDPM++) or after them (ADM).

    Source: Ho et al. 2020, arXiv:2006.11239, section B; Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, channels: int, endpoint: bool = True, sine_first: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.endpoint = endpoint
        self.sine_first = sine_first

    def forward(self, noise_level: Tensor) -> Tensor:
        """Maps noise levels of shape (B,) to embeddings of shape (B, channels)."""
        half = self.channels // 2
        level = _exact(noise_level)
        steps = torch.arange(half, dtype=level.dtype, device=level.device)
        frequencies = torch.exp(steps * (-math.log(10000) / max(half - self.endpoint, 1)))
        angles = level[:, None] * frequencies
        waves = (angles.sin(), angles.cos()) if self.sine_first else (angles.cos(), angles.sin())
        return F.pad(torch.cat(waves, dim=1), (0, self.channels % 2))


class FourierEmbedding(nn.Module):
    r"""Sines and cosines at random frequencies :math:`2 \pi w`, :math:`w \sim N(0, s^2)`, drawn once and kept.

    Args:
        channels: Length of the embedding, even.
        scale: The standard deviation :math:`s`.

    Source: Song et al. 2021, arXiv:2011.13456, appendix C.2; Tancik et al. 2020, arXiv:2006.10739.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("frequencies", torch.randn(channels // 2) * scale)

    def forward(self, noise_level: Tensor) -> Tensor:
        """Maps noise levels of shape (B,) to embeddings of shape (B, channels), sines first."""
        angles = _exact(noise_level)[:, None] * (2 * math.pi * _exact(self.frequencies))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Conditioning(nn.Module):
    """Noise level, class and augmentation to one activated vector per image.

    Two linear layers with an activation after each. The class enters before the first layer (DDPM++, EDM) or before
    the last activation (ADM); the augmentation vector always enters before the first layer.

    Args:
        embedding: Module from (B,) noise levels to (B, embedding.channels).
        hidden: Length of the result.
        num_classes: Number of classes, 0 for none.
        augment_dim: Length of the augmentation vector, 0 for none.
        label_dropout: Probability of dropping a label in training (for classifier-free guidance).
        late_labels: Whether the class enters before the last activation.
        activation: Name of the activation.
        scheme: Initialisation, see :func:`repro.networks.layers.basic.initialise`.
    """

    def __init__(
        self,
        embedding: PositionalEmbedding | FourierEmbedding,
        hidden: int,
        num_classes: int,
        augment_dim: int,
        label_dropout: float,
        late_labels: bool,
        activation: str,
        scheme: str,
    ) -> None:
        super().__init__()
        inputs = embedding.channels
        self.embedding = embedding
        self.layer1 = linear(inputs, hidden, scheme)
        self.layer2 = linear(hidden, hidden, scheme)
        self.label = None
        if num_classes:
            self.label = linear(num_classes, hidden if late_labels else inputs, scheme, bias=not late_labels)
            if late_labels:
                nn.init.normal_(self.label.weight)
        self.augment = None
        if augment_dim:
            self.augment = linear(augment_dim, inputs, scheme, gain=0.0 if late_labels else 1.0, bias=False)
        self.label_dropout = label_dropout
        self.late_labels = late_labels
        self.activation = activation_of(activation)

    def forward(self, noise_level: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Embeds a batch.

        Args:
            noise_level: Shape (B,).
            labels: int64 (B,), the number of classes meaning "no class", or None.
            augment_labels: (B, augment_dim), or None for images that were not augmented.

        Returns:
            Activated embedding, shape (B, hidden).
        """
        vector = self.embedding(noise_level).to(self.layer1.weight.dtype)
        classes = None if self.label is None else self._embed_classes(labels, len(noise_level), vector)
        if classes is not None and not self.late_labels:
            vector = vector + classes
        if self.augment is not None and augment_labels is not None:
            vector = vector + self.augment(augment_labels.to(vector.dtype))
        vector = self.layer2(self.activation(self.layer1(vector)))
        if classes is not None and self.late_labels:
            vector = vector + classes
        return self.activation(vector)

    def _embed_classes(self, labels: Tensor | None, batch: int, like: Tensor) -> Tensor:
        assert self.label is not None, "forward calls this only with classes"
        count = self.label.in_features
        if labels is None:
            return self.label(like.new_zeros(batch, count))
        if self.training and self.label_dropout:
            dropped = torch.rand(batch, device=like.device) < self.label_dropout
            labels = torch.where(dropped, count, labels)
        hot = (labels[:, None] == torch.arange(count, device=labels.device)).to(like.dtype)
        return self.label(hot if self.late_labels else hot * math.sqrt(count))
