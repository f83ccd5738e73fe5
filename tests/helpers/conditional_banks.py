"""Banks of conditional systems."""

from __future__ import annotations

import torch

from repro.banks import Bank, Manifest

NOISES, CLASSES = 40, 3


LABELS = torch.arange(CLASSES).repeat(NOISES)


SHAPE = (1, 6, 6)


def conditional(images, labels=LABELS, seeds=range(NOISES), classes=CLASSES):
    each = len(images) // len(seeds)
    manifest = Manifest(
        seeds=list(seeds),
        image_shape=images.shape[1:],
        task="conditional",
        labels={"num_classes": classes, "images_per_seed": each},
    )
    return Bank(images, manifest, labels)
