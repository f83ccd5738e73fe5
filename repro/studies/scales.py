"""How large a study is: its data, its networks, what makes two images the same, its noises, its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro.comparison import Comparison, compare
from repro.data import ImageData
from repro.descriptors.base import Descriptor
from repro.descriptors.default import default_descriptor
from repro.errors import UserError
from repro.registry import build
from repro.studies.jobs import Size

__all__ = ["SCALES", "Judge", "Scale"]


@dataclass(frozen=True)
class Judge:
    """What makes two images the same.

    Attributes:
        name: Registered name of the descriptor; None is the usual one for the images' shape.
        threshold: Similarity above which two images are the same; None is the descriptor's own.
    """

    name: str | None = None
    threshold: float | None = None

    def compare(self, banks: Sequence[Any], train: Any = None, **options: Any) -> Comparison:
        """Compares banks, as :func:`repro.comparison.compare` does, under this descriptor and threshold."""
        return compare(banks, self.name, train, self.threshold, **options)

    def descriptor(self, image_shape: tuple[int, int, int]) -> Descriptor:
        """Builds the descriptor for images of a shape (C, H, W)."""
        return default_descriptor(image_shape) if self.name is None else build("descriptors", self.name)


@dataclass(frozen=True)
class Scale:
    """One size at which studies can be run.

    Attributes:
        name: As in ``--scale NAME``.
        overlay: Config that goes over any system's own and makes it as large as the scale allows; None for the
            paper's own settings.
        data: Registered name of the data that the systems learn.
        judge: What makes two images the same.
        seeds: Which noises are compared, for example ``0-999``.
        fit: Expected size of one training, where a study does not know better.
        draw: Expected size of drawing the bank of one system.
        resize: Side that the overlay scales the images to; None leaves them as they are.
        images: Folder or archive of images that systems learn instead of ``data``; None for ``data``.
    """

    name: str
    overlay: str | None
    data: str
    judge: Judge
    seeds: str
    fit: Size
    draw: Size
    resize: int | None = None
    images: str | None = None

    @property
    def overlays(self) -> tuple[str, ...]:
        """The overlay as a tuple of none or one."""
        return () if self.overlay is None else (self.overlay,)

    @property
    def learned(self) -> str:
        """Name, for tables and titles, of what the systems learn."""
        return self.data if self.images is None else "/".join(Path(self.images).absolute().parts[-2:])

    def on(self, images: str | None) -> Scale:
        """Returns this scale with systems that learn other images of the same kind.

        Args:
            images: Folder or archive of images, for example of CIFAR-10 where torchvision cannot download it; None
                keeps the scale's data.

        Raises:
            UserError: nothing is there.
        """
        if images is not None and not Path(images).exists():
            raise UserError(f"nothing is at {images}; give --images a folder, zip or tar of images")
        return replace(self, images=images)

    def data_settings(self) -> dict[str, Any]:
        """Returns settings of ``repro fit`` that choose what systems learn; none where their configs do."""
        return {} if self.images is None else {"data": "ImageArchive", "data.path": self.images}

    def data_at(self, key: str, **arguments: Any) -> dict[str, Any]:
        """Returns settings that name what systems learn, at the size that they see, as the part ``key`` of a config.

        Args:
            key: For example ``model.denoiser.images`` for a closed form.
            arguments: Further ones of the data set, for example ``subset=32``.
        """
        name, own = self._data(arguments)
        return {key: name, **{f"{key}.{argument}": value for argument, value in own.items()}}

    def build_data(self, **arguments: Any) -> ImageData:
        """Builds what systems learn, at the size that they see; further arguments are those of the data set."""
        name, own = self._data(arguments)
        return build("data", name, **own)

    def _data(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        own = {"path": self.images, "resize": self.resize, **arguments}
        own = {key: value for key, value in own.items() if value is not None}
        return (self.data if self.images is None else "ImageArchive"), own


SCALES = {
    scale.name: scale
    for scale in (
        Scale("tiny", "small/digits", "Digits", Judge("Pixels", 0.95), "0-999", Size(60), Size(10)),
        Scale("cpu", "small/cifar16", "CIFAR10", Judge(), "0-999", Size(1_000), Size(150), 16),
        Scale("small", "small/cifar", "CIFAR10", Judge(), "0-1999", Size(3_600, 1, 16), Size(600, 1, 16)),
        Scale("paper", None, "CIFAR10", Judge(), "0-9999", Size(250_000, 1, 32), Size(3_600, 1, 32)),
    )
}
"""By name, from minutes on two cores to the paper's own size."""
