"""A score of pairs of images from the same noise."""

from torch import Tensor

from repro.metrics import PairMetric

__all__ = ["SameBrightness"]


class SameBrightness(PairMetric):
    """Share of noises whose two images are equally bright, to within a tolerance.

    Args:
        tolerance: Largest difference of the mean pixel values, in [0, 255].
    """

    inputs = "images"

    def __init__(self, tolerance: float = 8.0) -> None:
        super().__init__()
        self.tolerance = tolerance

    def match(self, a: Tensor, b: Tensor) -> Tensor:
        """Which pairs are equally bright: bool (n,)."""
        means = [images.float().flatten(1).mean(1) for images in (a, b)]
        return (means[0] - means[1]).abs() <= self.tolerance
