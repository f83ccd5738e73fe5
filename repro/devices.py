"""How tensors get from the host to an accelerator while both go on working."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["onto"]

_BLOCKING = ("cpu", "mps")  # where a copy is whole when the call returns, as Lightning has it


def onto(device: torch.device, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Copies a tensor to a device without making the host wait: from pinned memory, in the order of the device's work.

    The dtype changes on the device. A tensor that is there already stays.

    Args:
        device: Where to.
        tensor: A tensor, usually on the CPU.
        dtype: Of the result; None keeps that of the tensor.

    Example:
        >>> onto(torch.device("cpu"), torch.ones(2), torch.float64).dtype
        torch.float64
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type not in _BLOCKING).to(dtype or tensor.dtype)
