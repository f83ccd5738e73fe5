"""The optimiser of a training: which one, its learning rate with warm-up, and how many bad gradients are borne."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from repro.errors import UserError, unknown

__all__ = ["Optimization", "check_at_least"]


def check_at_least(above: bool, **values: float | None) -> None:
    """Raises UserError for the first value that is negative, or 0 with ``above``; None is legal."""
    for name, value in values.items():
        if value is not None and (value < 0 or (above and value == 0)):
            raise UserError(f"{name} is {value}; it must be {'above' if above and value == 0 else 'at least'} 0")


@dataclass(frozen=True)
class Optimization:
    """How weights are moved.

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
        check_at_least(True, lr=self.lr)
        check_at_least(False, lr_warmup=self.lr_warmup, nonfinite_limit=self.nonfinite_limit)
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
        """The learning rate of the step after so many images.

        Example:
            >>> Optimization(lr=1.0, lr_warmup=100).rate(49)
            0.5
        """
        return self.lr * (min(1.0, (images_seen + 1) / self.lr_warmup) if self.lr_warmup else 1.0)
