"""Several decoders for one encoder: which noise level goes to which, and each image through its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from repro.errors import UserError

__all__ = ["Stages"]


class Stages:
    """Cuts the range of noise levels at ``boundaries`` into intervals, open below and closed above.

    Args:
        decoders: Number of decoders.
        boundaries: Noise levels between the intervals, ascending.
        interval_decoders: Which decoder each interval uses; None: one decoder for each, in order.

    Raises:
        UserError: boundaries that are not ascending, or decoders that do not fit them.

    Example:
        >>> Stages(2, [0.5]).of(torch.tensor([0.1, 0.5, 0.9])).tolist()
        [0, 0, 1]
    """

    def __init__(
        self, decoders: int, boundaries: Sequence[float], interval_decoders: Sequence[int] | None = None
    ) -> None:
        assigned = range(decoders) if interval_decoders is None else interval_decoders
        if list(boundaries) != sorted(set(boundaries)) or len(assigned) != len(boundaries) + 1:
            raise UserError(
                f"{len(assigned)} intervals of noise levels need {len(assigned) - 1} ascending boundaries, "
                f"got {list(boundaries)}"
            )
        if set(assigned) != set(range(decoders)):
            raise UserError(f"interval_decoders is {list(assigned)}; use each of the decoders 0 to {decoders - 1}")
        self.decoders = decoders
        self.boundaries = tuple(float(boundary) for boundary in boundaries)
        self.interval_decoders = tuple(assigned)

    def of(self, noise_level: Tensor) -> Tensor:
        """Returns the decoder that each noise level uses, int64 of the same shape."""
        stage = torch.full_like(noise_level, self.interval_decoders[0], dtype=torch.int64)
        for boundary, (below, above) in zip(self.boundaries, pairwise(self.interval_decoders), strict=True):
            stage += (above - below) * (noise_level > boundary)
        return stage

    def run(
        self,
        decode: Callable[[int, list[Tensor]], Tensor],
        features: list[Tensor],
        noise_level: Tensor,
        stage: int | None = None,
    ) -> Tensor:
        """Decodes a batch, each image through the decoder of its noise level.

        Args:
            decode: From the number of a decoder and some rows of all ``features`` to those rows of the result.
            features: What the decoders read; every tensor has one row an image.
            noise_level: Shape (B,).
            stage: One decoder for the whole batch, whatever the noise levels.

        Raises:
            UserError: there is no such stage.
        """
        if stage is not None and stage not in range(self.decoders):
            raise UserError(f"stage is {stage}; this network has the decoders 0 to {self.decoders - 1}")
        if stage is not None or self.decoders == 1:
            return decode(stage or 0, features)
        chosen = self.of(noise_level)
        if torch.compiler.is_compiling() or noise_level.device.type != "cpu":
            return self._run_all(decode, features, chosen)
        present = chosen.unique().tolist()
        if len(present) == 1:
            return decode(present[0], features)
        rows = [(chosen == index).nonzero().squeeze(1) for index in present]
        parts = [decode(index, [x[own] for x in features]) for index, own in zip(present, rows, strict=True)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _run_all(self, decode: Callable[[int, list[Tensor]], Tensor], features: list[Tensor], chosen: Tensor) -> Tensor:
        """Every decoder on the whole batch, of which each image keeps its own: one graph, and no wait for the device.

        Sorting the batch would need its stages on the host. Samplers know them there and pass ``stage``.
        """
        result = decode(0, features)
        for index in range(1, self.decoders):
            other = decode(index, features)
            result = torch.where((chosen == index).view(-1, *[1] * (other.ndim - 1)), other, result)
        return result
