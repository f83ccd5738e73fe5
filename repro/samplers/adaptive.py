"""What the samplers share in which every image chooses the sizes of its own steps.

Times, step sizes and errors have the shape (B, 1, 1, 1), so that one formula serves one time for all and one for each.
Nothing of an image reaches its batch mates: image i takes the same steps in any batch, shard or process. To the last
bit, so no operation here may depend on where in a batch an image stands: :func:`torch.pow` with a fractional exponent
and :func:`torch.hypot` do (the entries that do not fill a vector register are computed by another routine).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from repro.errors import UserError

__all__ = ["attempts", "power", "put", "rms"]


def rms(images: Tensor) -> Tensor:
    """Computes the root mean square of each image, (B, C, H, W) -> (B, 1, 1, 1).

    One image at a time: a reduction over a batch may add up in another order than over one image, and a last bit of
    an error is enough to move a step.
    """
    return torch.stack([image.square().mean().sqrt() for image in images]).view(-1, 1, 1, 1)


def power(x: Tensor, exponent: float) -> Tensor:
    """Raises x of at least 0 to a power, with the same bits in any batch."""
    return (x.log() * exponent).exp()


def put(whole: Tensor, rows: Tensor, part: Tensor) -> Tensor:
    """Replaces some rows of a batch in a copy of it."""
    return whole.index_copy(0, rows, part)


def attempts(name: str, most: int = 5000) -> Iterator[int]:
    """Counts the steps that are tried, 0, 1, 2, ...

    Args:
        name: The sampler's name.
        most: How many there may be; smooth denoisers take 10 to 300.

    Raises:
        UserError: more than ``most``.
    """
    yield from range(most)
    raise UserError(
        f"{name}: an image has not arrived after {most} steps: the denoiser is not smooth (guidance too large, or a "
        "broken model?); take a sampler of fixed steps, such as Heun"
    )
