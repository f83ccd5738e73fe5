"""Moving averages of weights, with memory measured in images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from repro.training.optimization import check_at_least

__all__ = ["Average", "ema_decay", "update_average"]


def ema_decay(images: int, images_seen: int, halflife: float, rampup: float | None) -> float:
    r"""How much of the average stays after a step over ``images`` images: :math:`2^{-\mathrm{images}/h}`.

    The half-life h is ``halflife``, early in training at most ``rampup * images_seen``.

    Example:
        >>> ema_decay(images=500, images_seen=10**9, halflife=500.0, rampup=0.05)
        0.5

    Source: Karras et al. 2022, arXiv:2206.00364, appendix F.2.
    """
    if rampup is not None:
        halflife = min(halflife, images_seen * rampup)
    return 0.5 ** (images / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def update_average(average: nn.Module, source: nn.Module, decay: float, trained_only: bool = False) -> None:
    """Moves ``average`` towards ``source``: parameters by ``1 - decay``, buffers copied; in fused steps.

    Args:
        average: The average.
        source: What is averaged.
        decay: How much of the average stays, in [0, 1].
        trained_only: Leave out parameters of ``source`` that are frozen, so that the average of them keeps every bit.
    """
    both = zip(average.parameters(), source.parameters(), strict=True)
    pairs = [(kept, new) for kept, new in both if new.requires_grad or not trained_only]
    if pairs:
        torch._foreach_lerp_([kept for kept, _ in pairs], [new for _, new in pairs], 1 - decay)
    buffers, fresh = list(average.buffers()), list(source.buffers())
    if buffers:
        torch._foreach_copy_(buffers, fresh)


@dataclass(frozen=True)
class Average:
    """How weights are averaged over a training; see :func:`ema_decay`.

    Args:
        ema_halflife: Half-life of the averaged weights, in images; 0 keeps those of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; None for none.

    Raises:
        UserError: a value outside its range.
    """

    ema_halflife: float = 500_000
    ema_rampup: float | None = 0.05

    def __post_init__(self) -> None:
        check_at_least(False, ema_halflife=self.ema_halflife)
        check_at_least(True, ema_rampup=self.ema_rampup)

    def decay(self, images: int, images_seen: int) -> float:
        """How much of the average stays in a step over ``images`` images, the last of ``images_seen``."""
        return ema_decay(images, images_seen, self.ema_halflife, self.ema_rampup)
