"""The type of every network argument, and what the built-in networks share: shapes, labels, clear errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from repro.errors import UserError, check_at_least, unknown
from repro.registry import Plugin

__all__ = ["Network", "one_of", "sides_of", "sizes_of"]


class Network(nn.Module, Plugin, ABC):
    r"""A network :math:`F(x, c, y)`: scaled images, one noise level per image and labels in, images out.

    Third parties may register a plain ``nn.Module`` with the same ``forward`` in the group ``repro.networks``: loading
    it makes it a virtual subclass. As a base class it records the constructor's arguments, keeps ``image_shape`` and
    ``num_classes``, and checks what ``forward`` gets.

    Args:
        image_size: Pixels a side of square images, or [height, width].
        channels: Colour channels of the images.
        num_classes: Number of classes; 0 or None for an unconditional network.

    Attributes:
        attention_parameters: Shell globs on the names of the parameters of its attention layers, their normalisations
            included; a network that names them otherwise says how.

    Raises:
        UserError: ``image_size`` or ``channels`` is missing or not positive.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    has_null_class: bool = False
    attention_parameters: ClassVar[Sequence[str]] = ("*attention*",)

    def __init__(self, image_size: int | Sequence[int] | None, channels: int | None, num_classes: int | None) -> None:
        super().__init__()
        name = type(self).__name__
        if image_size is None or channels is None:
            argument = "channels" if channels is None else "image_size"
            raise UserError(f"{name} needs {argument}; give it, or let the command line fill it in from the data")
        height, width = sides_of(name, image_size)
        check_at_least(1, name, image_size=min(height, width), channels=channels)
        if num_classes is not None and num_classes < 0:
            raise UserError(f"num_classes of {name} is {num_classes}; give 0 (unconditional) or more")
        self.image_shape = (channels, height, width)
        self.num_classes = num_classes or 0

    def settle_null_class(self, null_class: bool, label_dropout: float) -> None:
        """Sets ``has_null_class``: whether the network also answers without labels.

        Args:
            null_class: Whether it is to.
            label_dropout: Probability of dropping a label in training; above 0 there is a null class in any case.

        Raises:
            UserError: a probability outside [0, 1], or label dropout without classes.
        """
        if not 0 <= label_dropout <= 1:
            raise UserError(f"label_dropout is {label_dropout}; give a probability from 0 to 1")
        if label_dropout and not self.num_classes:
            raise UserError(
                f"label_dropout is {label_dropout:g}, but {type(self).__name__} has no classes; leave it out, or train "
                "with --task conditional"
            )
        self.has_null_class = bool(self.num_classes) and (null_class or label_dropout > 0)

    @abstractmethod
    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps scaled noisy images to images.

        Args:
            x: Images as scaled by the denoiser, shape (B, C, H, W).
            noise_level: What the network is told about the noise, shape (B,).
            labels: Classes in [0, num_classes), int64 of shape (B,), or None.

        Returns:
            Images of shape (B, C, H, W).
        """

    def check_input(self, x: Tensor, noise_level: Tensor) -> None:
        """Raises a UserError unless the images and the noise levels have the network's shapes."""
        if tuple(x.shape[1:]) != self.image_shape or x.ndim != 4:
            raise UserError(
                f"{type(self).__name__} was built for images {self.image_shape}, got a tensor of shape "
                f"{tuple(x.shape)}; build it with this image_size and channels"
            )
        if noise_level.shape != x.shape[:1]:
            raise UserError(f"noise_level has shape {tuple(noise_level.shape)}; give ({x.shape[0]},), one per image")

    def check_labels(self, labels: Tensor | None, batch: int, optional: bool = False) -> None:
        """Raises a UserError unless the labels fit the network.

        Args:
            labels: What ``forward`` was given.
            batch: Number of images.
            optional: Whether the network answers without labels too; then the label ``num_classes`` means "none".
        """
        name = type(self).__name__
        if labels is None:
            if self.num_classes and not optional:
                raise UserError(f"{name} is conditional on {self.num_classes} classes; give labels")
            return
        if not self.num_classes:
            raise UserError(f"{name} is unconditional (num_classes is 0); leave the labels out")
        if labels.shape != (batch,) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise UserError(
                f"labels of {name} have shape {tuple(labels.shape)} and type {labels.dtype}; "
                f"give integers of shape ({batch},)"
            )
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and batch:
            highest = self.num_classes - (not optional)
            if labels.min() < 0 or labels.max() > highest:
                raise UserError(f"labels of {name} lie in [{labels.min()}, {labels.max()}]; legal are 0 to {highest}")


def one_of(argument: str, option: str, legal: Iterable[str]) -> str:
    """Returns an option if it is among the legal ones.

    Raises:
        UserError: it is not; the message names the nearest legal one.

    Example:
        >>> one_of("encoder", "skip", ("standard", "skip"))
        'skip'
    """
    legal = tuple(legal)
    if option not in legal:
        raise unknown(argument, option, legal)
    return option


def sides_of(network: str, image_size: int | Sequence[int]) -> tuple[int, int]:
    """Returns height and width of images whose size is one number or a pair.

    Raises:
        UserError: neither of the two.

    Example:
        >>> sides_of("SongUNet", 32), sides_of("SongUNet", [8, 12])
        ((32, 32), (8, 12))
    """
    if isinstance(image_size, int):
        return image_size, image_size
    if len(image_size) != 2:
        raise UserError(f"image_size of {network} is {list(image_size)}; give pixels a side, or [height, width]")
    height, width = image_size
    return height, width


def sizes_of(network: str, image_size: int | Sequence[int], channel_mult: Sequence[float]) -> list[int]:
    """Returns length of the feature maps on every level of a U-Net, from fine to coarse: of the shorter side.

    Raises:
        UserError: the image cannot be halved that often.

    Example:
        >>> sizes_of("SongUNet", 32, [2, 2, 2])
        [32, 16, 8]
    """
    levels = len(channel_mult)
    if not levels:
        raise UserError(f"channel_mult of {network} is empty; give one multiplier per resolution, such as [1, 2, 2]")
    divisor, sides = 2 ** (levels - 1), sides_of(network, image_size)
    for side in sides:
        if side % divisor:
            raise UserError(
                f"image_size {side} cannot be halved {levels - 1} times by {network} (channel_mult has {levels} "
                f"levels); give a multiple of {divisor} or fewer levels"
            )
    return [min(sides) >> level for level in range(levels)]
