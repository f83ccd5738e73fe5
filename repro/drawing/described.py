"""Scores of one model on images of its data, beside those of what it draws: likelihood, and plug-ins like it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.fabric import Fabric
from torchmetrics import Metric

from repro.data.base import ImageData
from repro.data.progress import slow_progress
from repro.errors import UserError
from repro.images import to_uint8
from repro.models.base import Model
from repro.models.denoising import Denoising

__all__ = ["Described"]

_BATCH = 64


class Described:
    """Metrics of one model on the first training images and the first held-out images.

    Args:
        model: The model.
        metrics: Metrics whose ``inputs`` are ``model``, by name.
        data: The images.
        count: How many of each kind.
        labelled: Whether the model takes the images' classes.

    Raises:
        UserError: a model that is no denoiser, no data, fewer than two images, images of another size or without
            classes.
    """

    def __init__(
        self, model: Model, metrics: Mapping[str, Metric], data: ImageData | None, count: int, labelled: bool
    ) -> None:
        names = ", ".join(metrics)
        if not isinstance(model, Denoising):
            raise UserError(f"{names}: the model is a {type(model).__name__}, which has no denoiser; leave it out")
        if data is None:
            raise UserError(f"{names} needs images; type --data NAME (repro plugins data)")
        if count < 2:
            raise UserError(f"{names} needs at least 2 images, as many as there are seeds; type --seeds 0-99")
        if tuple(data.image_shape) != tuple(model.denoiser.image_shape):
            there, here = ("x".join(map(str, shape)) for shape in (model.denoiser.image_shape, data.image_shape))
            raise UserError(f"{names} needs images of the denoiser's shape {there}; the data have {here}")
        if labelled and not data.num_classes:
            raise UserError(f"{names}: the model takes classes, and the data have none; name labelled --data")
        self.model = model
        kinds = {"training images": (data.images(), data.labels())}
        if data.holdout:
            kinds["held-out images"] = data.held_out()
        self.images = {
            kind: (to_uint8(images[:count]), labels[:count] if labelled else None)
            for kind, (images, labels) in kinds.items()
        }
        self.metrics = {f"{name}/{kind}": metric.clone() for name, metric in metrics.items() for kind in kinds}

    def measure(self, fabric: Fabric) -> None:
        """Updates the metrics, each process with images of its own."""
        denoiser = self.model.to(fabric.device).denoiser
        for name, metric in self.metrics.items():
            images, labels = self.images[name.partition("/")[2]]
            metric.to(fabric.device)
            own = torch.arange(fabric.global_rank, len(images), fabric.world_size)
            with slow_progress(name, len(own)) as done:
                for rows in own.split(_BATCH):
                    classes = None if labels is None else labels[rows].to(fabric.device)
                    metric.update(denoiser, images[rows].to(fabric.device), classes, seeds=rows)
                    done(int(rows[-1]) // fabric.world_size + 1)

    def table(self) -> list[tuple[str, float, tuple[float, float], int]]:
        """Returns (score, value, 95 % interval, n) of each metric and kind of images, over all processes."""
        return [
            (name, float(metric.compute()), metric.interval(), metric.count) for name, metric in self.metrics.items()
        ]
