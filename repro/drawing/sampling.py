"""Drawing numbered images from any model, in memory or into a bank that can be continued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from repro.banks import BankWriter, Manifest
from repro.models.base import GenerativeModule
from repro.registry import record_of
from repro.tasks.base import Task

__all__ = ["Draws", "bank_writer", "sample"]


def sample(
    model: GenerativeModule, seeds: Iterable[int], labels: Tensor | None = None, batch_size: int = 250
) -> Tensor:
    """Images of numbered noises, in memory.

    Args:
        model: Any generative module.
        seeds: One number an image.
        labels: Class of each image, for conditional models.
        batch_size: Images at a time; the images do not depend on it beyond the rounding of matrix products.

    Returns:
        uint8 images on the CPU, shape (n, C, H, W).

    Raises:
        UserError: no seeds, or labels that do not fit the model.
    """
    seeds = list(seeds)
    parts = [
        model.sample(seeds[i : i + batch_size], None if labels is None else labels[i : i + batch_size])
        for i in range(0, max(1, len(seeds)), batch_size)
    ]
    return torch.cat(parts)


def bank_writer(
    path: str | Path, model: GenerativeModule, task: Task, seeds: Sequence[int], shard_size: int = 250
) -> BankWriter:
    """The writer of a model's bank; continues one that is there.

    Raises:
        UserError: the task cannot be done with the model, or the folder holds other samples.
    """
    task.check(model)
    record = record_of(model)
    manifest = Manifest(
        seeds=list(seeds),
        image_shape=model.image_shape,
        model=record,
        model_fingerprint=model.fingerprint(),
        source=model.origin or "",
        sampler=model.sampler_record(),
        kernel=record["args"].get("kernel"),
        task=task.name,
        guidance=model.guidance,
        labels=task.labels_record(model),
        data=model.data_record,
        data_fingerprint=model.data_fingerprint,
        extra=task.record(model),
    )
    return BankWriter(path, manifest, shard_size=shard_size)


class _Shards(Dataset):
    def __init__(self, shards: list[list[int]], model: GenerativeModule, task: Task) -> None:
        self.shards, self.model, self.task = shards, model, task

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        seeds = torch.tensor(self.shards[index], dtype=torch.int64)
        return seeds, self.task.labels(self.model, seeds)


class Draws(L.LightningDataModule):
    """Seeds to draw, cut into shards, each process taking its own: for ``test`` and ``predict``.

    Args:
        model: The model that will draw them.
        task: What is drawn for each seed.
        seeds: Every seed once.
        shard_size: Seeds a batch.
        writer: Leave out the shards that this bank already has.
    """

    def __init__(
        self,
        model: GenerativeModule,
        task: Task,
        seeds: Sequence[int],
        shard_size: int = 250,
        writer: BankWriter | None = None,
    ) -> None:
        super().__init__()
        self.model, self.task, self.seeds, self.shard_size, self.writer = model, task, list(seeds), shard_size, writer

    def _loader(self) -> DataLoader[Any]:
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if self.writer is not None:
            shards = self.writer.missing(rank, world)
        else:
            starts = range(rank * self.shard_size, len(self.seeds), world * self.shard_size)
            shards = [self.seeds[start : start + self.shard_size] for start in starts]
        return DataLoader(_Shards(shards, self.model, self.task), batch_size=None)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of (seeds, labels) of this process."""
        return self._loader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of (seeds, labels) of this process that are not in the bank yet."""
        return self._loader()
