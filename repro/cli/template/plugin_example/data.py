"""A data set: images to train on."""

import torch

from repro.data import ImageData
from repro.data.source import ArraySource

__all__ = ["Stripes"]


class Stripes(ImageData):
    """512 images of 8x8 grey pixels with stripes across or down, in 2 classes. Its arguments are those of every set."""

    reaches_out = False

    def open_source(self) -> ArraySource:
        """Draws them; called once, on first use."""
        random = torch.Generator().manual_seed(0)
        labels = torch.randint(2, (512,), generator=random)
        brightness = torch.randint(256, (512, 1, 8, 1), generator=random).to(torch.uint8).expand(-1, -1, -1, 8)
        images = torch.where(labels[:, None, None, None] == 0, brightness, brightness.transpose(2, 3))
        return ArraySource(images, labels, ["across", "down"])
