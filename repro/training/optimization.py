"""How weights move in a training: the optimiser, its warm-up, how many bad gradients are borne, and the average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from repro.errors import UserError, check_above, check_at_least, unknown

__all__ = ["Average", "Optimization", "ema_decay", "update_average"]


@dataclass(frozen=True)
class Optimization:
    """Settings of the optimiser: which one, its learning rate and warm-up, how many bad gradients are borne.

    Args:
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.

    Raises:
        UserError: a value outside its range, or an unknown optimiser.
    """

    optimizer: str = "Adam"
    lr: float = 2e-4
    optimizer_args: Mapping[str, Any] | None = field(default=None)
    lr_warmup: int = 0
    nonfinite_limit: int = 10

    def __post_init__(self) -> None:
        check_above(0, lr=self.lr)
        check_at_least(0, lr_warmup=self.lr_warmup, nonfinite_limit=self.nonfinite_limit)
        known = [name for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name != "Optimizer"]
        if self.optimizer not in known:
            raise unknown("optimizer", self.optimizer, known)

    def over(self, module: nn.Module) -> torch.optim.Optimizer:
        """Builds an optimiser over the trained weights of a module.

        Raises:
            UserError: arguments that the optimiser does not take.
        """
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        try:
            return getattr(torch.optim, self.optimizer)(trained, lr=self.lr, **(self.optimizer_args or {}))
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            kind = type(error).__name__
            raise UserError(f"torch.optim.{self.optimizer} refuses its arguments: {kind}: {error}") from error

    def rate(self, images_seen: int) -> float:
        """Returns the learning rate of the step after so many images.

        Example:
            >>> Optimization(lr=1.0, lr_warmup=100).rate(49)
            0.5
        """
        return self.lr * (min(1.0, (images_seen + 1) / self.lr_warmup) if self.lr_warmup else 1.0)


def ema_decay(images: int, images_seen: int, halflife: float, rampup: float | None) -> float:
    r"""Says how much of the average stays after a step over ``images`` images: :math:`2^{-\mathrm{images}/h}`.

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
        check_at_least(0, ema_halflife=self.ema_halflife)
        check_above(0, ema_rampup=self.ema_rampup)

    def decay(self, images: int, images_seen: int) -> float:
        """Says how much of the average stays in a step over ``images`` images, the last of ``images_seen``."""
        return ema_decay(images, images_seen, self.ema_halflife, self.ema_rampup)
