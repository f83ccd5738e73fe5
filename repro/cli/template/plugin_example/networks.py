"""A network: noisy images, noise levels and labels in, images out. Any ``nn.Module`` with this ``forward`` will do."""

import torch
from torch import Tensor, nn

from repro.networks import Network

__all__ = ["TwoConvolutions"]


class TwoConvolutions(Network):
    """Two convolutions with the noise level as a further channel.

    Args:
        image_size: Pixels a side; filled in from the data.
        channels: Channels of the images; filled in from the data.
        num_classes: Number of classes; 0 is an unconditional network.
        width: Channels between the convolutions.
    """

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
        width: int = 8,
    ) -> None:
        super().__init__(image_size, channels, num_classes)
        self.inner = nn.Conv2d(self.image_shape[0] + 1, width, 3, padding=1)
        self.outer = nn.Conv2d(width, self.image_shape[0], 3, padding=1)
        self.classes = nn.Embedding(self.num_classes, width) if self.num_classes else None

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for images (B, C, H, W), noise levels (B,) and labels (B,)."""
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x))
        level = noise_level.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        hidden = self.inner(torch.cat([x, level], dim=1))
        if self.classes is not None:
            hidden = hidden + self.classes(labels)[:, :, None, None]
        return self.outer(torch.relu(hidden))
