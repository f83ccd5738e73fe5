"""The endless stream of training batches, addressed by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from repro.data.order import flips_at, items_at
from repro.data.source import ImageSource
from repro.errors import UserError

__all__ = ["Batch", "BatchStream", "Batches", "InOrder"]

Batch = tuple[Tensor, Tensor]


class Batches(Dataset[Batch]):
    """The batch that begins at a position, as one rank sees it.

    Args:
        source: The images; their order here is the order of ``labels``.
        seed: Number of the order and of the flips.
        batch_size: Images a batch, over all ranks.
        horizontal_flip: Whether a fair coin of each position mirrors its image.
        rank: Which rows are taken: ``rank, rank + world_size, ...``
        world_size: How many ranks share a batch.
    """

    def __init__(
        self, source: ImageSource, seed: int, batch_size: int, horizontal_flip: bool, rank: int, world_size: int
    ) -> None:
        self.source, self.seed, self.batch_size, self.horizontal_flip = source, seed, batch_size, horizontal_flip
        self.rows = slice(rank, None, world_size)

    def __getitem__(self, first: int) -> Batch:
        """Images uint8 (b, C, H, W) and labels int64 (b,) of positions ``first .. first + batch_size - 1``."""
        items = items_at(self.seed, len(self.source), first, self.batch_size)[self.rows]
        images = self.source.read(items)
        if self.horizontal_flip:
            flips = torch.from_numpy(flips_at(self.seed, first, self.batch_size)[self.rows].copy())
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        return images, self.source.labels[torch.from_numpy(items.copy())]


class _TellingErrors(Dataset[Any]):
    """Hands a user's error over as a value: a worker process would bury it in its traceback."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, first: int) -> Batch | UserError:
        try:
            return self.batches[first]
        except UserError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


class BatchStream:
    """Batches from a position on: what Lightning iterates as its train loader.

    Its length is that of the whole run, as Lightning counts a resumed run; an iteration begins at the position that
    ``start`` tells when its first batch is asked for, which for a resumed run is after its state was restored.
    Resuming a run on a stream of other images, size or order is refused.

    Args:
        batches: The batch at each position.
        length: How many batches the run has.
        start: Tells how many images were seen.
        workers: Processes that prepare batches; 0 prepares them in this one. The batches are the same.
        pin_memory: Whether batches are put where a GPU copies them from while the host goes on. As no training step
            makes the host wait, it then reads and sends the next batches while the GPU works.
    """

    def __init__(
        self,
        batches: Batches,
        length: int,
        start: Callable[[], int],
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batches, self.start, self.workers, self.pin_memory = batches, start, workers, pin_memory
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        first, step = self.start(), self.batches.batch_size
        loader = DataLoader(
            _TellingErrors(self.batches),
            batch_size=None,
            sampler=range(first, first + len(self) * step, step),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels = batch
            yield images, labels

    def state_dict(self) -> dict[str, int]:
        """Plain integers that a resumed run must share with this one; the position is kept by the training module."""
        return {
            "images": len(self.batches.source),
            "batch_size": self.batches.batch_size,
            "seed": self.batches.seed,
            "horizontal_flip": int(self.batches.horizontal_flip),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Checks that the run being resumed saw this stream.

        Raises:
            UserError: it did not; names what differs.
        """
        here = self.state_dict()
        differing = [f"{key} was {state.get(key)}, is now {here[key]}" for key in here if state.get(key) != here[key]]
        if differing:
            raise UserError(
                f"cannot resume: the checkpoint was trained on another stream of data ({'; '.join(differing)}); "
                "give the same data settings, or start a new run"
            )


class InOrder(Sequence[Batch]):
    """The images of a source in their order, each once.

    Args:
        source: The images.
        batch_size: Images a batch; the last one may have fewer.
        pin_memory: As in :class:`BatchStream`.
    """

    def __init__(self, source: ImageSource, batch_size: int, pin_memory: bool = False) -> None:
        self.source, self.batch_size, self.pin_memory = source, batch_size, pin_memory

    def __len__(self) -> int:
        return math.ceil(len(self.source) / self.batch_size)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        if index >= len(self):
            raise IndexError(index)
        first = index * self.batch_size
        items = np.arange(first, min(first + self.batch_size, len(self.source)))
        images, labels = self.source.read(items), self.source.labels[first : first + self.batch_size]
        return (images.pin_memory(), labels.pin_memory()) if self.pin_memory else (images, labels)
