"""A descriptor: what makes two images alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

from repro.descriptors import Descriptor

__all__ = ["Thumbnail"]


class Thumbnail(Descriptor):
    """The image at 4x4 pixels, less its mean brightness."""

    default_threshold = 0.9

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Vectors (n, C * 16) of uint8 images (n, C, H, W)."""
        small = F.adaptive_avg_pool2d(images.to(device).double(), 4).flatten(1)
        return small - small.mean(1, keepdim=True)
