"""The base of every data set: what a plug-in writes, and what everybody asks of it."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from repro import registry
from repro.data.order import Split
from repro.data.source import ArraySource, ClassSource, FittedSource, ImageSource, SubsetSource
from repro.data.stream import Batch, Batches, BatchStream, InOrder
from repro.data.trust import remember, was_trained_on
from repro.errors import Outside, UserError, check_at_least
from repro.registry import Plugin

__all__ = ["IN_MEMORY_BYTES", "Facts", "ImageData"]

IN_MEMORY_BYTES = 4 * 2**30
_READ = 1024
_CLASSES_NAMED = 20


@dataclass(frozen=True)
class Facts:
    """What can be said about a set before any image of it is decoded.

    Attributes:
        images: How many there are, before subsets.
        image_shape: (C, H, W), with or without the effect of ``resize`` and ``grayscale``.
        num_classes: How many classes; 0 when there are none.
    """

    images: int
    image_shape: tuple[int, int, int]
    num_classes: int


class ImageData(LightningDataModule, Plugin, ABC):
    """A set of images with labels, as Lightning's trainer, the banks and the scores use it.

    Images are uint8 in [0, 255], (C, H, W), unless the class says another ``dtype``: floats are what a model is shown,
    where pictures are scaled to [-1, 1] (:func:`repro.images.to_float` takes both).

    The set is taken in the order of a permutation of ``subset_seed``: a subset of N is its first N, so that subsets are
    nested, and the held-out images are its last. Training batches come from an endless stream: position p, the number
    of images seen before, is item ``permutation(seed, p // N)[p % N]``. Batch k holds positions ``k * batch_size`` to
    ``(k + 1) * batch_size - 1`` and may run into the next pass. The position is the training module's ``images_seen``;
    a resumed run goes on where it was, bit for bit. Any ``lightning.Trainer`` takes it as its data module: the training
    loader is one stream for the whole run; without held-out images there is no validation loader.

    A new kind of data is a subclass with :meth:`open_source`, registered in the entry-point group ``repro.data``.

    Args:
        batch_size: Images a batch, over all ranks; with gradient accumulation one optimiser step takes several.
        subset: How many images to train on; None takes all that are not held out.
        subset_seed: Which images a subset takes: subsets of one seed are nested.
        classes: Names or numbers of the classes to keep, which become 0, 1, 2, ... in this order; ``dog,cat`` is as
            good as a list, and text that is a name is one before it is a number. None keeps all.
        seed: Number of the batch order and of the flips.
        horizontal_flip: Whether each image seen is mirrored by a fair coin of its position.
        resize: Scale the whole set once to this side: centre square; block means when the side divides the old one,
            else antialiased bicubic; linear upwards.
        grayscale: Turn the whole set grey (ITU-R 601 luma).
        holdout: How many images are never trained on; the validation loader gives them in order.
        workers: Processes that prepare batches; 0 is best for sets in memory. The batches are the same.
        in_memory: Whether the images are kept decoded in memory; None keeps them when they take at most 4 GiB.

    Attributes:
        dtype: Of the images: uint8, or float32 for data that are no pictures.
        reaches_out: Whether the images are read from a path or an address; a record in a stranger's file may then
            not name them (:mod:`repro.data.recorded`).

    Raises:
        UserError: an argument out of its range; on first use, a subset larger than the set.
    """

    dtype: torch.dtype = torch.uint8
    reaches_out: bool = True

    def __init__(
        self,
        *,
        batch_size: int = 128,
        subset: int | None = None,
        subset_seed: int = 0,
        classes: list[int | str] | str | None = None,
        seed: int = 0,
        horizontal_flip: bool = False,
        resize: int | None = None,
        grayscale: bool = False,
        holdout: int = 0,
        workers: int = 0,
        in_memory: bool | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, resize=resize)
        check_at_least(0, seed=seed, workers=workers)
        self._split = Split(subset, subset_seed, holdout)
        self.batch_size, self.subset, self.subset_seed, self.seed = batch_size, subset, subset_seed, seed
        self.horizontal_flip, self.resize, self.grayscale = horizontal_flip, resize, grayscale
        self.holdout, self.workers, self.in_memory = holdout, workers, in_memory
        kept = [name.strip() for name in classes.split(",")] if isinstance(classes, str) else classes
        if kept is not None and (not kept or len(set(kept)) < len(kept)):
            raise UserError(f"classes is {classes}; give different names or numbers, such as 0,1, or leave it out")
        self.kept_classes = kept
        self._count: int | None = None
        self._source: ImageSource | None = None
        self._facts: Facts | None = None
        self._memory: tuple[ArraySource, ArraySource] | None = None
        self._fingerprint: str | None = None
        self._checked = False

    @classmethod
    def inside_only(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Refuses images outside of somebody else's file, unless this user trained on them here before."""
        entry = registry.entry_of(cls)
        if cls.reaches_out and not was_trained_on({"name": entry.name if entry else "", "args": arguments}):
            path = arguments.get("path") or arguments.get("root")
            raise Outside(
                f"{cls.__name__}{f' {path!r:.200}' if path else ''} is outside of the file that names it, and not read "
                "unasked"
            )
        return super().inside_only(arguments)

    @abstractmethod
    def open_source(self) -> ImageSource:
        """Returns the images as they are stored; called once, on first use. A subclass writes only this method."""

    def facts(self) -> Facts:
        """Finds number, shape and classes of the images as cheaply as it can; a subclass may know them beforehand."""
        source = self._open()
        return Facts(len(source), source.image_shape, len(source.class_names))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(subset={self.subset}, subset_seed={self.subset_seed})"

    __str__ = __repr__

    def __len__(self) -> int:
        """N: how many images there are to train on."""
        return self._split.size(self._total, type(self).__name__)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images, after resizing and turning grey."""
        channels, height, width = self._known.image_shape
        return (1 if self.grayscale else channels, self.resize or height, self.resize or width)

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 when the images are unlabelled."""
        return self._known.num_classes if self.kept_classes is None else len(self.kept_classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, in the order of the labels."""
        return self._memory[0].class_names if self._memory is not None else self._open().class_names

    def images(self) -> Tensor:
        """The images to train on: ``dtype`` (N, C, H, W), in the order of the subset. Loads them into memory."""
        return self._loaded()[0].images

    def shown(self) -> Batch:
        """Returns every image that a training is shown, with its label: those of :meth:`images`, then, with
        ``horizontal_flip``, the mirrored copy of each."""
        images, labels = self.images(), self.labels()
        if not self.horizontal_flip:
            return images, labels
        return torch.cat([images, images.flip(-1)]), labels.repeat(2)

    def class_line(self) -> str:
        """Returns what the classes are, in words: ``3 classes: cat, dog, horse``, or ``no classes``."""
        names = self.class_names
        shown = ", ".join(names[:_CLASSES_NAMED]) + (", ..." if len(names) > _CLASSES_NAMED else "")
        return f"{len(names)} class{'es' if len(names) > 1 else ''}: {shown}" if names else "no classes"

    def labels(self) -> Tensor:
        """Returns classes of the images to train on: int64 (N,); zeros when they are unlabelled."""
        return (self._memory or self._chosen())[0].labels

    def held_out(self) -> Batch:
        """Returns the held-out images and labels: uint8 (holdout, C, H, W) and int64 (holdout,)."""
        held = self._loaded()[1]
        return held.images, held.labels

    def fingerprint(self) -> str:
        """SHA-256 over shape, labels and bytes of the images to train on, in order: 64 hexadecimal digits."""
        if self._fingerprint is None:
            part = self._parts()[0]
            digest = hashlib.sha256(repr((len(part), *self.image_shape)).encode())
            digest.update(part.labels.numpy().astype("<i8").tobytes())
            for first in range(0, len(part), _READ):
                digest.update(part.read(np.arange(first, min(first + _READ, len(part)))).numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def stream(
        self,
        length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        start: Callable[[], int] | None = None,
        pin_memory: bool = False,
    ) -> BatchStream:
        """Returns the training batches ``(images (b, C, H, W), labels int64 (b,))`` of one rank.

        Args:
            length: How many batches; None gives one pass, the last batch running into the next.
            rank: This rank takes rows ``rank, rank + world_size, ...`` of every batch.
            world_size: How many ranks share a batch.
            start: Tells the position to begin at when the first batch is asked for; None begins at 0.
            pin_memory: Whether batches are put where a GPU copies them from fastest.

        Raises:
            UserError: ``batch_size`` cannot be shared evenly.
        """
        self.check_ranks(world_size)
        batches = Batches(self._parts()[0], self.seed, self.batch_size, self.horizontal_flip, rank, world_size)
        if length is None:
            length = math.ceil(len(self) / self.batch_size)
        return BatchStream(batches, length, start or _at_zero, self.workers, pin_memory)

    def check_ranks(self, world_size: int) -> None:
        """Raises a UserError unless so many ranks can share a batch evenly."""
        if self.batch_size % world_size:
            near = max(self.batch_size // world_size, 1) * world_size
            raise UserError(
                f"batch_size is {self.batch_size}, over all ranks, but there are {world_size} ranks; "
                f"give a multiple of {world_size}, for example {near}"
            )

    def held_out_batches(self, rank: int = 0, world_size: int = 1, pin_memory: bool = False) -> Sequence[Batch]:
        """Returns the held-out images in order, each on one rank once.

        Args:
            rank: This rank takes images ``rank, rank + world_size, ...``
            world_size: How many ranks share them.
            pin_memory: Whether batches are put where a GPU copies them from fastest.
        """
        held = self._parts()[1]
        rows = np.arange(rank, len(held), world_size)
        return InOrder(SubsetSource(held, rows), max(self.batch_size // world_size, 1), pin_memory)

    def prepare(self) -> None:
        """Finds, downloads and decodes what is missing, and looks at every image that is not kept in memory."""
        if self._memory is None:
            len(self)
            self._open().prepare()
            if not self._fits_memory():
                self.check()

    def check(self) -> None:
        """Loads what is kept in memory and looks once at every other image, so that bad ones are named before use.

        Raises:
            UserError: names all images that cannot be read.
        """
        parts = self._parts()
        if self._memory is None and not self._checked:
            for part in parts:
                part.check(np.arange(len(part)))
            self._checked = True

    def prepare_data(self) -> None:
        """Finds, downloads and decodes what is missing, before training and on one process a machine."""
        self.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Loads what is kept in memory, so that a bad image is found before the first step.

        Raises:
            UserError: a validation run without held-out images; training without them goes on without validation.
        """
        if not self.holdout and stage == "validate":
            raise UserError("no images are held out to validate on; give for example --data.holdout 1000")
        self.check()
        if stage == "fit":
            remember(self)
        self.__dict__.pop("val_dataloader", None)
        if not self.holdout:
            self.__dict__["val_dataloader"] = None  # how Lightning knows that there is no such loader

    def train_dataloader(self) -> BatchStream:
        """Returns the stream of the whole run: ``max_steps * accumulate_grad_batches`` batches are one Lightning epoch.

        Without ``max_steps`` an epoch is one pass over the images.
        """
        trainer = self.trainer
        if trainer is None:
            return self.stream()
        length = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else None
        return self.stream(length, trainer.global_rank, trainer.world_size, self._images_seen, _on_gpu(trainer))

    def val_dataloader(self) -> Sequence[Batch]:
        """Returns the held-out images in order, each on one rank once."""
        trainer = self.trainer
        if trainer is None:
            return self.held_out_batches()
        return self.held_out_batches(trainer.global_rank, trainer.world_size, _on_gpu(trainer))

    def _images_seen(self) -> int:
        trainer = self.trainer
        return int(getattr(trainer.lightning_module, "images_seen", 0)) if trainer is not None else 0

    @property
    def _known(self) -> Facts:
        if self._facts is None:
            self._facts = self.facts()
        return self._facts

    @property
    def _total(self) -> int:
        """How many images there are, before subsets; those of other classes are not counted."""
        if self._count is None:
            self._count = self._known.images if self.kept_classes is None else len(self._open())
        return self._count

    def _open(self) -> ImageSource:
        if self._source is None:
            source = self.open_source()
            channels, height, width = source.image_shape
            side = self.resize
            if (side is not None and (height, width) != (side, side)) or (self.grayscale and channels != 1):
                source = FittedSource(source, side, self.grayscale)
            self._source = source if self.kept_classes is None else ClassSource(source, self.kept_classes)
        return self._source

    def _chosen(self) -> tuple[SubsetSource, SubsetSource]:
        source = self._open()
        train, held = self._split.indices(self._total, type(self).__name__)
        return SubsetSource(source, train), SubsetSource(source, held)

    def _loaded(self) -> tuple[ArraySource, ArraySource]:
        if self._memory is None:
            kept = []
            for part in self._chosen():
                kept.append(ArraySource(part.read(np.arange(len(part))), part.labels, part.class_names))
            self._memory, self._source = (kept[0], kept[1]), None
        return self._memory

    def _fits_memory(self) -> bool:
        if self.in_memory is not None:
            return self.in_memory
        values = (len(self) + self.holdout) * math.prod(self.image_shape)
        return values * self.dtype.itemsize <= IN_MEMORY_BYTES

    def _parts(self) -> tuple[ImageSource, ImageSource]:
        if self._memory is not None or self._fits_memory():
            return self._loaded()
        train, held = self._chosen()
        train.prepare()
        return train, held


def _on_gpu(trainer: Any) -> bool:
    return trainer.strategy.root_device.type == "cuda"


def _at_zero() -> int:
    return 0
