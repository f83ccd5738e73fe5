"""A bound on the memory that a record in a checkpoint may ask for: what its weights can need, not what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from repro.errors import UserError

__all__ = ["Allowance"]

_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.linspace}
_PLACE = ("device", "generator", "pin_memory", "out")
_TIMES = 4
_MORE_BYTES = 256 << 20
_MORE_TENSORS = 1000


class Allowance(TorchFunctionMode):
    """Limits the tensors that a record may make: about four times the file's own weights, in bytes and in number.

    So a record whose width or depth does not fit its weights ends in one line, before memory or patience is gone.

    Args:
        weights: The tensors of the checkpoint.
        source: What the record is in, for the error message.

    Raises:
        UserError: more is asked for.

    Example:
        >>> with Allowance([torch.zeros(8)], "checkpoint x.ckpt"):
        ...     _ = torch.empty(1 << 40)
        Traceback (most recent call last):
        repro.errors.UserError: checkpoint x.ckpt: its record describes a model much larger than its weights
    """

    def __init__(self, weights: Iterable[Tensor], source: str) -> None:
        super().__init__()
        sizes = [each.numel() * each.element_size() for each in weights]
        self._bytes, self._tensors = _TIMES * sum(sizes) + _MORE_BYTES, _TIMES * len(sizes) + _MORE_TENSORS
        self._source = source

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _MAKERS:
            return func(*args, **(kwargs or {}))
        with torch.device("meta"):
            wanted = func(*args, **{key: value for key, value in (kwargs or {}).items() if key not in _PLACE})
        self._bytes, self._tensors = self._bytes - wanted.numel() * wanted.element_size(), self._tensors - 1
        if min(self._bytes, self._tensors) < 0:
            raise UserError(f"{self._source}: its record describes a model much larger than its weights")
        return func(*args, **(kwargs or {}))
