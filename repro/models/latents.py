"""What the models share that draw an image from one latent vector: the latent of noise i, and checked sizes."""

from __future__ import annotations

from torch import Tensor

from repro.errors import UserError, check_at_least
from repro.noise import NoiseStream

__all__ = ["latents", "unconditional_shape"]

_BLOCK = 16


def latents(noise: NoiseStream, size: int) -> Tensor:
    """Latent vectors of numbered noises: the first ``size`` normals of each, float32 on the CPU, shape (n, size).

    Latents of every size begin with the same normals, those that the image-shaped noise of the seed begins with.
    (PyTorch draws normals in blocks of 16, so a whole number of blocks is drawn and cut.)

    Example:
        >>> short, long = (latents(NoiseStream([7]), size) for size in (5, 40))
        >>> bool((short == long[:, :5]).all())
        True
    """
    return noise.draw((-(-size // _BLOCK) * _BLOCK,))[:, :size]


def unconditional_shape(
    module: str, image_size: int | None, channels: int | None, num_classes: int | None
) -> tuple[int, int, int]:
    """Returns the image shape (C, H, W) of an unconditional module from its arguments.

    Raises:
        UserError: a size is missing or not positive, or there are classes.
    """
    if num_classes:
        raise UserError(f"{module} is unconditional, num_classes is {num_classes}; type --task unconditional")
    side = _size(module, "image_size", image_size)
    return (_size(module, "channels", channels), side, side)


def _size(module: str, argument: str, value: int | None) -> int:
    if value is None:
        raise UserError(f"{module} needs {argument}; give it, or let the command line fill it in from the data")
    check_at_least(1, module, **{argument: value})
    return value
