"""A network that knows nothing of repro: any ``nn.Module`` with this ``forward`` will do."""

import torch
from torch import Tensor, nn

__all__ = ["TwoConvolutions"]


class TwoConvolutions(nn.Module):
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
        super().__init__()
        self.image_shape, self.num_classes = (channels, image_size, image_size), num_classes or 0
        self.inner = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.outer = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) for images (B, C, H, W) and noise levels (B,)."""
        level = noise_level.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return self.outer(torch.relu(self.inner(torch.cat([x, level], dim=1))))
