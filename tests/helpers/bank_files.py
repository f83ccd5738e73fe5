"""Sample banks of random images, for tests of banks as training data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from repro.banks import BankWriter


def write_bank(
    folder: Path, count: int, *, per_seed: int = 1, classes: int = 0, shard_size: int = 4, shards: int | None = None
) -> tuple[Tensor, Tensor]:
    """Writes a bank of 1x6x6 images of the seeds from 100 on, or only its first shards; gives all images and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count * per_seed, 1, 6, 6), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count * per_seed) % max(classes, 1)
    kinds = {"num_classes": classes, "images_per_seed": per_seed} if classes else None
    manifest = {"seeds": range(100, 100 + count), "image_shape": (1, 6, 6), "labels": kinds}
    writer = BankWriter(folder, manifest, shard_size)
    for seeds in writer.missing()[:shards]:
        rows = [(seed - 100) * per_seed + each for seed in seeds for each in range(per_seed)]
        writer.write(seeds, images[rows], labels[rows] if classes else None)
    return images, labels
