"""What images a descriptor was made for, and whether given ones are of that kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Domain", "contrast", "roughness"]

_SEEN = 1000


@dataclass(frozen=True)
class Domain:
    """The kind of images whose similarities a descriptor's threshold was chosen on.

    Attributes:
        text: What they are, as in "was made for ...".
        channels: 1 for grey or 3 for colour.
        sides: Smallest and largest side in pixels.
        contrast: Smallest and largest median of :func:`contrast`, in levels.
        roughness: Smallest and largest median of :func:`roughness`.
    """

    text: str
    channels: int
    sides: tuple[int, int]
    contrast: tuple[float, float]
    roughness: tuple[float, float]

    def misfit(self, images: Tensor) -> str | None:
        """Says in words how images differ from this kind; None where they do not.

        Args:
            images: uint8, shape (n, C, H, W); up to 1,000 of them, evenly spread, are looked at.

        Example:
            >>> digits = Domain("8 x 8 grey digits", 1, (8, 8), (60, 130), (0.3, 1.0))
            >>> digits.misfit(torch.zeros(2, 1, 16, 16, dtype=torch.uint8))
            'they are 16 x 16, contrast 0'
        """
        seen = images[torch.linspace(0, len(images) - 1, min(_SEEN, len(images))).long()]
        height, width = seen.shape[2:]
        reasons = []
        if not (self.sides[0] <= min(height, width) and max(height, width) <= self.sides[1]):
            reasons.append(f"{height} x {width}")
        if seen.shape[1] != self.channels:
            reasons.append({1: "grey", 3: "coloured"}.get(seen.shape[1], f"of {seen.shape[1]} channels"))
        for name, measured, limits in (
            ("contrast", contrast(seen), self.contrast),
            ("roughness", roughness(seen), self.roughness),
        ):
            median = float(measured.median())
            if not limits[0] <= median <= limits[1]:
                reasons.append(f"{name} {median:.2g}")
            if name == "contrast" and median < 1:
                break
        return f"they are {', '.join(reasons)}" if reasons else None


def contrast(images: Tensor) -> Tensor:
    """Computes the standard deviation of each image's values, in levels, shape (n,)."""
    return images.flatten(1).double().std(1, correction=0)


def roughness(images: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels over the contrast, shape (n,); photographs 0.3, noise 1.15."""
    x = images.double()
    down, across = (x.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3))
    return (down + across) / 2 / contrast(images).clamp(min=1)
