"""The network of a copy-detection descriptor as a recorded model: it describes images and draws none."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from repro.errors import UserError
from repro.models.base import Recorded
from repro.networks.sscd import SSCDNetwork

__all__ = ["CopyDescriptor"]


class CopyDescriptor(Recorded):
    """A network that gives images unit vectors, alike for copies and edited views of one image.

    Args:
        image_size: Height and width of the images.
        channels: Their channels.
        widths: As of :class:`~repro.networks.sscd.SSCDNetwork`, like all that follow.
        depths: Blocks of each stage.
        block: Kind of block.
        stem: Kind of first layers.
        stem_width: Their channels.
        dims: Length of the vectors.

    Raises:
        UserError: a missing size.
    """

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        stem: str = "full",
        stem_width: int = 64,
        dims: int = 512,
    ) -> None:
        super().__init__()
        if image_size is None or channels is None:
            raise UserError("CopyDetection needs image_size and channels; give them, or let the data fill them in")
        self.image_shape = (channels, image_size, image_size)
        self.network = SSCDNetwork(channels, widths, depths, block, stem=stem, stem_width=stem_width, dims=dims)

    @property
    def next_command(self) -> str:
        """What a user types once it is trained: compares with the descriptor."""
        return "repro compare BANK BANK --descriptor SmallSSCD --descriptor.weights {run}"

    def forward(self, images: Tensor) -> Tensor:
        """Computes unit vectors (B, dims) of images in [-1, 1], shape (B, C, H, W)."""
        return self.network(images)
