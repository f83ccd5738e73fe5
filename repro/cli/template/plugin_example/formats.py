"""A checkpoint format: files of another project, read without executing anything of them."""

from typing import ClassVar

from repro.models import DenoisingModel
from repro.released.base import ForeignFile, Format, fill, named, variance_preserving
from repro.samplers import Heun, Sampler

__all__ = ["TwoConvolutionsFormat"]

_NAMES = named("inner.weight", "outer.weight")


class TwoConvolutionsFormat(Format):
    """Plain state dicts of the network in ``networks.py``, as ``torch.save(network.state_dict(), path)`` writes them.

    Args:
        image_size: Pixels a side, which the file does not say; 8 by default.
        sampler: How images are drawn, in place of Heun with 10 steps.
    """

    about: ClassVar[str] = "state dicts of TwoConvolutions"

    def __init__(self, image_size: int | None = None, sampler: Sampler | None = None) -> None:
        super().__init__(sampler)
        self.image_size = image_size

    def recognises(self, file: ForeignFile) -> bool:
        """Whether the weights have the names of this network."""
        return file.weights(_NAMES) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        """The model: the network with the file's weights, its kernel, what its output means."""
        weights = file.require(_NAMES)
        width, channels = weights.tensors["inner.weight"].shape[0], weights.tensors["outer.weight"].shape[0]
        size = {"image_size": self.settle(file, "image_size", 8), "channels": channels, "width": width}
        kernel, parameterization, times = variance_preserving("VP")
        network = {"name": "TwoConvolutions", "args": size}
        model = self.diffusion(network, kernel, parameterization, Heun(steps=10), times)
        fill(model, weights.tensors, weights.raw, file)
        file.found = f"TwoConvolutions of width {width}, {weights.kind}"
        return model
