"""Well-known sets, downloaded and checked by torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch

from repro.data.base import Facts, ImageData
from repro.data.source import ArraySource
from repro.errors import UserError, unknown
from repro.files import cache_folder

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "Downloaded"]

_SPLITS = ("train", "test", "all")


class Downloaded(ImageData):
    """Base of the sets that torchvision downloads; the files are looked for first, then fetched.

    Args:
        root: Folder of the files, as torchvision lays them out; None is ``$REPRO_CACHE/data`` (or
            ``~/.cache/repro/data``).
        split: Which part: train, test, or all (train first).
        download: Whether missing files may be fetched.
        common: As of every data set.

    Raises:
        UserError: an unknown split; on first use, missing files that cannot be fetched, or files that are corrupt.
    """

    counts: ClassVar[Mapping[str, int]]
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]

    def __init__(
        self,
        root: str | None = None,
        *,
        split: Literal["train", "test", "all"] = "train",
        download: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if split not in _SPLITS:
            raise unknown("split", split, _SPLITS)
        self.root, self.split, self.download = root, split, download

    @classmethod
    def inside_only(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Lets a set be looked for in the cache folder, where nothing is fetched for somebody else's file."""
        return {**arguments, "download": False} if arguments.get("root") is None else super().inside_only(arguments)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that make up the split."""
        return ("train", "test") if self.split == "all" else (self.split,)

    def facts(self) -> Facts:
        """Returns the number, shape and classes of the set, known without its files."""
        return Facts(sum(self.counts[part] for part in self.parts), self.shape, self.classes)

    def open_source(self) -> ArraySource:
        """Reads the files, fetching them when they are missing."""
        sets = [self._read(part) for part in self.parts]
        arrays = [torch.as_tensor(part.data) for part in sets]
        images = arrays[0] if len(arrays) == 1 else torch.cat(arrays)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        labels = torch.cat([torch.as_tensor(part.targets) for part in sets])
        if len(images) != self._known.images:
            raise UserError(
                f"{type(self).__name__} in {self._folder()} has {len(images):,} images instead of "
                f"{self._known.images:,}; remove its files there, they will be fetched again"
            )
        return ArraySource(images, labels, [name.split(" - ")[0] for name in sets[0].classes])

    def _folder(self) -> Path:
        return cache_folder("data", make=self.download) if self.root is None else Path(self.root).expanduser()

    def _read(self, part: str) -> Any:
        import torchvision.datasets

        name, folder = type(self).__name__, self._folder()
        dataset = getattr(torchvision.datasets, name)
        train = part == "train"
        try:
            return dataset(folder, train=train, download=False)
        except Exception as error:
            cause, reason = error, "may not be fetched (download is false)"
        if self.download:
            try:
                return dataset(folder, train=train, download=True)
            except Exception as error:
                cause, reason = error, f"cannot be fetched ({' '.join(str(error).split()) or type(error).__name__})"
        files, target, address = self._wanted(dataset, folder)
        raise UserError(
            f"{name} is missing or corrupt in {folder} and {reason}; put {files} from {address} into {target}, "
            "or name the folder that has it with --data.root"
        ) from cause

    def _wanted(self, dataset: Any, folder: Path) -> tuple[str, Path, str]:
        return dataset.filename, folder, dataset.url


class CIFAR10(Downloaded):
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32 colour, 10 classes; 163 MB to download once.

    Source: Krizhevsky 2009, *Learning multiple layers of features from tiny images*.
    """

    counts = MappingProxyType({"train": 50_000, "test": 10_000})
    shape = (3, 32, 32)
    classes = 10


class CIFAR100(Downloaded):
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32 colour, 100 fine classes; 161 MB to download once.

    Source: Krizhevsky 2009, *Learning multiple layers of features from tiny images*.
    """

    counts = MappingProxyType({"train": 50_000, "test": 10_000})
    shape = (3, 32, 32)
    classes = 100


class MNIST(Downloaded):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 grey; 12 MB to download once.

    Source: LeCun, Bottou, Bengio & Haffner 1998, *Gradient-based learning applied to document recognition*.
    """

    counts = MappingProxyType({"train": 60_000, "test": 10_000})
    shape = (1, 28, 28)
    classes = 10

    def _wanted(self, dataset: Any, folder: Path) -> tuple[str, Path, str]:
        files = ", ".join(name for name, _ in dataset.resources)
        return files, folder / "MNIST" / "raw", dataset.mirrors[0]
