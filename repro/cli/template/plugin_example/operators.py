"""An operator: what is measured of an image in an inverse problem."""

from torch import Tensor

from repro.inverse.operators import Operator

__all__ = ["EverySecondRow"]


class EverySecondRow(Operator):
    """Keeps the even rows of an image."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows 0, 2, 4, ... of images (B, C, H, W)."""
        return x[:, :, ::2]
