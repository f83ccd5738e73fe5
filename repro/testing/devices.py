"""An accelerator rehearsed without one, and what it must not be asked for in a hot loop.

Where the host waits for the device, on purpose:

========================== ============================================================================================
step of an adaptive        Each image chooses its own steps, so which ones go on, and which attempts are accepted, is
sampler                    known on the device alone: :data:`WAITS_OF_STEPS`.
images that are drawn      Twice for each batch: they are looked at (finite?) and brought to the host as bytes.
empirical optimum          Once for each chunk of 1 GiB of training images: those too far away are left out. Labels are
                           looked at once for each call.
training step that is      Loss, norm of the gradient and learning rate are read; so are skipped steps, and whether one
logged                     of several processes wants to save or stop.
checkpoint, sample grid    At their own intervals: weights and images come to the host.
first training step        Float images are looked at once: are they in [-1, 1]?
descriptor                 Once for each batch of images: its vectors come to the host.
score                      In an update, once for each set of features: are they finite? GL looks again where rounding
                           leaves a choice, and waits more often. And wherever a score is computed.
========================== ============================================================================================
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["WAITS_OF_STEPS", "FakeDevice", "Waits", "WithoutWaiting"]

WAITS_OF_STEPS = {"RK45": 2, "DPMSolver": 3}
"""Waits of one step of the adaptive samplers: which images go on, which of them are accepted, which are stale."""

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
    _aten.bincount: "bincount()",
    _aten.repeat_interleave: "repeat_interleave() without output_size",
    _aten._linalg_check_errors: "a decomposition of torch.linalg",
}
_COPY = "a copy between pageable memory and the device"


def _is_there(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.device.type != "cpu"


def _masks(packet: Any, args: Any) -> bool:
    """True: the operation indexes by a condition that only the device knows, and does not fill by one number."""
    if packet not in (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_):
        return False
    masks = [each for each in args[1] if each is not None and each.dtype == torch.bool and _is_there(each)]
    filled = packet is not _aten.index and len(args[1]) == 1 and args[2].numel() == 1
    return bool(masks) and not filled


class Waits(TorchDispatchMode):
    """A context that counts where the host waits for an accelerator, and refuses tensors left behind on the CPU.

    Works on tensors of a real accelerator, of :class:`FakeDevice` and of the meta device, which answers here as that
    does. A copy to the device is no wait when it is asked to be ``non_blocking`` and comes from pinned memory, which
    the meta device does not know.

    Attributes:
        counted: How often the host waited, by reason.

    Raises:
        AssertionError: tensors of two devices met (single numbers on the CPU may).
    """

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def wait(self, reason: str) -> None:
        """Counts one wait."""
        self.counted[reason] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet, leaves = func.overloadpacket, tree_leaves((args, kwargs))
        on_device = [leaf for leaf in leaves if _is_there(leaf)]
        on_host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == "cpu"]
        to = kwargs.get("device")
        goes = to is not None and torch.device(to).type != "cpu"
        if packet in (_aten._to_copy, _aten.copy_):
            comes = bool(on_device) and (
                args[0].device.type == "cpu"
                if packet is _aten.copy_
                else to is not None and torch.device(to).type == "cpu"
            )
            if comes or (on_host and (on_device or goes) and not _flows(packet, args, kwargs)):
                self.wait(_COPY)
        else:
            left = [tensor for tensor in on_host if tensor.ndim] if on_device else []
            assert not left, f"{func}: a tensor of shape {tuple(left[0].shape)} was left on the CPU"
            if on_device and (packet in _WAITS or _masks(packet, args)):
                self.wait(_WAITS.get(packet, _WAITS[_aten.nonzero]))
        if on_device and on_device[0].is_meta and (known := _as_if_all_held(packet, args, kwargs)) is not None:
            return known
        answer = func(*args, **kwargs)
        if packet is _aten._pin_memory:
            answer.pinned_by_rehearsal = True
        return answer


def _flows(packet: Any, args: Any, kwargs: Any) -> bool:
    """True: a copy to the device does not make the host wait."""
    source = args[1] if packet is _aten.copy_ else args[0]
    if not (kwargs.get("non_blocking") or (packet is _aten.copy_ and len(args) > 2 and args[2])):
        return False
    target = args[0].device if packet is _aten.copy_ else torch.device(kwargs["device"])
    return target.type == "meta" or getattr(source, "pinned_by_rehearsal", False) or source.is_pinned()


class WithoutWaiting(Waits):
    """A context in which the host may not wait for an accelerator, nor leave tensors behind on the CPU.

    Raises:
        AssertionError: a value was read, a size depends on values, memory that is not pinned was copied to the device,
            or tensors of two devices met (single numbers on the CPU may).
    """

    def wait(self, reason: str) -> None:
        """Refuses the wait."""
        raise AssertionError(f"the host waits for the device: {reason}")


class FakeDevice(FakeTensorMode):
    """A context with a device ``cuda`` that needs no GPU: tensors there have shapes and no values.

    Those on the CPU are real, as are all decisions of the host. What only the device knows is answered as if every
    condition held: ``nonzero()`` and a boolean index give all rows, ``item()`` gives 1.

    Example:
        >>> with FakeDevice(), Waits() as waits:
        ...     x = torch.ones(3, device="cuda")
        ...     float(x.sum()), tuple(x[x > 0].shape), torch.ones(3).sum().item()
        (1.0, (3,), 3.0)
        >>> sorted(waits.counted.items())
        [('item() or tolist()', 1), ('nonzero() or a boolean index', 1)]
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet, fake = func.overloadpacket, any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
        if packet is _aten._pin_memory:
            return args[0].clone()
        to = kwargs.get("device")
        if not fake and (to is None or torch.device(to).type == "cpu"):
            return func(*args, **kwargs)
        if any(_is_there(leaf) for leaf in tree_leaves(args)):
            with self:
                known = _as_if_all_held(packet, args, kwargs)
            if known is not None:
                return known
        return super().__torch_dispatch__(func, types, args, kwargs)


def _as_if_all_held(packet: Any, args: Any, kwargs: Any) -> Any:
    """The answer to what only the device knows, as if every condition held; None for any other operation."""
    if packet is _aten._local_scalar_dense:
        return torch.ones((), dtype=args[0].dtype).item()
    if packet is _aten.nonzero:
        return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.int64)
    if packet is _aten.bincount:
        return args[0].new_empty(max(kwargs.get("minlength", 1), *args[2:], 1))
    if packet is _aten.index and any(each is not None and each.dtype == torch.bool for each in args[1]):
        return args[0][tuple(slice(None) if each is None else _all_rows(each) for each in args[1])]
    return None


def _all_rows(index: Tensor | None) -> Tensor | None:
    """Numbers of all rows in place of a condition over one dimension."""
    if index is None or index.dtype != torch.bool:
        return index
    assert index.ndim == 1, "a rehearsal knows conditions over one dimension only"
    return index.new_empty(len(index), dtype=torch.int64)
