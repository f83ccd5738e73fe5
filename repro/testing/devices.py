"""What a device must not be asked for in a hot loop: values that the host waits for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["WithoutWaiting"]

_aten = torch.ops.aten
# Their results have a size, or a Python value, that only the device knows.
_WAITS = {
    _aten._local_scalar_dense: "item() or tolist()",
    _aten.nonzero: "nonzero() or a boolean index",
    _aten.masked_select: "masked_select()",
    _aten._unique2: "unique()",
    _aten.unique_dim: "unique()",
    _aten.unique_consecutive: "unique_consecutive()",
    _aten.equal: "equal()",
}


class WithoutWaiting(TorchDispatchMode):
    """A context in which the host may not wait for an accelerator, nor leave tensors behind on the CPU.

    Works on tensors of a real accelerator and on fake ones of :class:`torch._subclasses.fake_tensor.FakeTensorMode`.

    Raises:
        AssertionError: a value was read, a size depends on values, memory that is not pinned was copied to the device,
            or tensors of two devices met (single numbers on the CPU may).
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [tensor for tensor in tensors if tensor.device.type != "cpu"]
        on_host = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.ndim]
        packet = func.overloadpacket
        assert not (on_device and packet in _WAITS), f"the host waits for the device: {_WAITS[packet]}"
        to = kwargs.get("device")
        if packet in (_aten._to_copy, _aten.copy_):
            moves = (on_host and (on_device or (to is not None and torch.device(to).type != "cpu"))) or (
                on_device and to is not None and torch.device(to).type == "cpu"
            )
            assert not moves, "the host waits for the device: a copy between pageable memory and the device"
        else:
            assert not (on_device and on_host), (
                f"{func}: a tensor of shape {tuple(on_host[0].shape)} was left on the CPU"
            )
        return func(*args, **kwargs)
