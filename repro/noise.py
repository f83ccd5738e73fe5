"""Numbered noise: image i is the same bits for every model, batch size, rank count and device.

Each seed owns one CPU generator. Its first draw is the starting noise of image i; stochastic samplers take their
later draws from the same generator, so that they too are reproducible (the convention of EDM's generate script).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from repro.errors import UserError, check_at_least

__all__ = ["NoiseStream", "draw_noise", "mixture_bases", "parse_seeds"]


_SEEDS = 2**32


def _checked(seeds: Iterable[int]) -> list[int]:
    checked = []
    for seed in seeds:
        try:
            checked.append(operator.index(seed))
        except TypeError:
            raise UserError(f"seed {seed!r} is not an integer; seeds are 0, 1, 2, ...") from None
    if not checked:
        raise UserError("no seeds given; name at least one, for example 0-999")
    if min(checked) < 0:
        raise UserError(f"seed {min(checked)} is negative; seeds are 0, 1, 2, ...")
    if max(checked) >= _SEEDS:
        raise UserError(f"seed {max(checked)} is too large; the generator tells seeds up to {_SEEDS - 1} apart")
    return checked


class NoiseStream:
    """The numbered noises of a batch of seeds, one CPU generator a seed.

    Args:
        seeds: One integer from 0 to 2**32 - 1 an image.

    Raises:
        UserError: no seed, or one that is not such an integer.

    Example:
        >>> stream = NoiseStream([3, 4])
        >>> torch.equal(stream.draw((1, 2, 2)), draw_noise([3, 4], (1, 2, 2)))
        True
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self.seeds = _checked(seeds)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Returns the next unit normal noise of every seed: float32 on the CPU, shape ``(n, *shape)``."""
        noise = torch.empty(len(self), *shape)
        for row, generator in zip(noise, self._generators, strict=True):
            torch.randn(tuple(shape), generator=generator, out=row)
        return noise


def draw_noise(seeds: Iterable[int], shape: Sequence[int]) -> Tensor:
    """Draws unit normal noise by number: float32 on the CPU, shape ``(n, *shape)``.

    Row of seed i is ``torch.randn(shape, generator=torch.Generator().manual_seed(i))``.

    Args:
        seeds: One integer from 0 to 2**32 - 1 an image.
        shape: Shape of one image, (C, H, W).

    Raises:
        UserError: no seed, or one that is not such an integer.

    Example:
        >>> torch.equal(draw_noise(range(9), (1, 8, 8))[7:], draw_noise([7, 8], (1, 8, 8)))
        True
    """
    return NoiseStream(seeds).draw(shape)


def parse_seeds(text: str | int | Sequence[int]) -> list[int]:
    """Reads seeds from ``"0-9999"``, ``"5"``, ``"0-3,8,10-11"`` or a list of integers.

    Raises:
        UserError: not of this form, an empty range, or a seed that is negative, too large or repeated.

    Example:
        >>> parse_seeds("0-3,8")
        [0, 1, 2, 3, 8]
    """
    if isinstance(text, str | int):
        seeds: list[int] = []
        for part in str(text).split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise UserError(f"cannot read seeds {str(text)!r}; write a range or a list, such as 0-9999 or 0-3,8")
            if dash and int(last) < int(first):
                raise UserError(f"seed range {part.strip()!r} is empty; write first-last, for example 0-9999")
            _checked([int(last or first)])
            seeds.extend(range(int(first), int(last or first) + 1))
    else:
        seeds = list(text)
    seeds = _checked(seeds)
    if len(set(seeds)) != len(seeds):
        raise UserError(f"seeds {str(text)[:60]!r} name a seed twice; each noise counts once")
    return seeds


def mixture_bases(image_shape: Sequence[int], components: int, rank: int, seed: int) -> Tensor:
    """Draws orthonormal bases of K planes, uniformly distributed over directions, by number; of the mixture (eq. 2).

    Args:
        image_shape: (C, H, W), n = C H W pixels.
        components: K, how many planes.
        rank: d, their dimension, at most n.
        seed: Number of the draw.

    Returns:
        float64 (K, n, d), on the CPU.

    Raises:
        UserError: no component, or a rank that is not from 1 to n.

    Example:
        >>> basis = mixture_bases((3, 4, 4), 2, 7, seed=0)[1]
        >>> torch.allclose(basis.T @ basis, torch.eye(7, dtype=torch.float64))
        True
    """
    pixels = math.prod(image_shape)
    check_at_least(1, components=components)
    if not 1 <= rank <= pixels:
        raise UserError(f"rank is {rank}; images of {pixels} values take a rank from 1 to {pixels}")
    generator = torch.Generator().manual_seed(seed)
    bases, triangles = torch.linalg.qr(torch.randn(components, pixels, rank, generator=generator, dtype=torch.float64))
    return bases * triangles.diagonal(dim1=1, dim2=2).sign()[:, None]
