"""Networks: plain modules ``F(x, noise_level, labels)`` that know nothing of kernels and losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.registry import Plugin

__all__ = ["Network"]

class Network(Plugin, nn.Module):
    """Base of the networks inside denoisers.

    A subclass takes ``image_size``, ``channels`` and ``num_classes`` first (None until the command line has filled them
    in from the data), then its own sizes, and implements :meth:`forward`.

    Args:
        image_size: Pixels a side of the square images.
        channels: Channels of the images.
        num_classes: Number of classes; 0 or None is an unconditional network.
        null_class: Whether a further class, number ``num_classes``, stands for "no label" and is used without labels.

    Attributes:
        image_shape: (C, H, W).
        num_classes: As given, 0 for None.
        null_label: The label that stands for "no label", or None when there is none.

    Raises:
        UserError: a size is missing or not positive, or a null class without classes.
    """

    def __init__(
        self, image_size: int | None, channels: int | None, num_classes: int | None, null_class: bool = False
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value in (("image_size", image_size), ("channels", channels)):
            if value is None:
                raise UserError(f"{name} needs {argument}; give it (--model.network.{argument} N) or name the data first")
            if value < 1:
                raise UserError(f"{name}: {argument} is {value}; give at least 1")
        if num_classes is not None and num_classes < 0:
            raise UserError(f"{name}: num_classes is {num_classes}; give 0 for an unconditional network")
        if null_class and not num_classes:
            raise UserError(f"{name}: null_class needs num_classes above 0; drop one of the two")
        self.image_shape = (channels, image_size, image_size)
        self.num_classes = num_classes or 0
        self.null_label = self.num_classes if null_class else None

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's answer for each image.

        Args:
            x: Scaled noisy images, shape (B, C, H, W).
            noise_level: One number an image, shape (B,); its scale is the denoiser's.
            labels: Classes 0 .. ``num_classes`` - 1, int64, shape (B,), or None.

        Returns:
            Shape (B, C, H, W).
        """
        raise NotImplementedError

    def resolve_labels(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels to look up: None for an unconditional network, the null label where none were given.

        Raises:
            UserError: labels for an unconditional network, or none for one that needs them.
        """
        name = type(self).__name__
        if not self.num_classes:
            if labels is not None:
                raise UserError(f"{name} has no classes (num_classes 0) but was given labels; build it with num_classes")
            return None
        if labels is not None:
            return labels
        if self.null_label is None:
            raise UserError(f"{name} has {self.num_classes} classes and no null class, so it needs labels; give them")
        return torch.full((len(x),), self.null_label, dtype=torch.int64, device=x.device)

    def extra_repr(self) -> str:
        """Image shape and classes, for printing."""
        return f"image_shape={self.image_shape}, num_classes={self.num_classes}"
