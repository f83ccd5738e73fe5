"""The pickle virtual machine as an interpreter of data: nothing that a pickle names is ever imported or called.

Source: the opcodes as ``pickletools`` documents them.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, TypeGuard, cast

import torch
from torch import Tensor

__all__ = ["Machine", "Record", "Refused", "Storage"]

_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
}
_VALUES = {*_DTYPES, *map(str, _DTYPES.values())}
_CLASS = re.compile(r"dnnlib\.util\.EasyDict|argparse\.Namespace|torch\.nn\.modules\.[a-z]+\.[A-Z]\w*")
_OLD_MODULES = {"__builtin__": "builtins"}
_KEYS = (str, int, float, bytes, type(None))
_MOST_DIMENSIONS = 8


class Refused(Exception):
    """The pickle asks for something that no checkpoint needs."""


@dataclass(frozen=True)
class _Named:
    """A global of a pickle: its name, nothing else."""

    name: str


@dataclass
class Record:
    """An object that was pickled, as plain data: its class is a name, its methods are not here.

    Attributes:
        name: Name of its class, without the module.
        state: Its attributes.
        items: Its entries, for a class that is a dictionary.
    """

    name: str
    state: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass
class Storage:
    """The bytes of a torch storage, uint8, and the type of its elements."""

    data: Tensor
    dtype: torch.dtype


class Machine:
    """Interprets a pickle; only :data:`_CALLS` may be called, and none of them copies what it is given.

    So what a pickle builds is not larger than the pickle, but for references. Keys are plain values, since hashing
    nested ones could take for ever; entries under others are left out. An object of any other class, and the result
    of any other call, is a :class:`Record` with that name.

    Args:
        storage: Gives the storage of a persistent id: element type, key, number of elements. None: there are none.
        from_bytes: Reads a storage that is pickled as bytes. None: nothing may be named but types of storages.
        unread: Takes the full names of the classes and functions that were not obeyed, in the order of their first use.
    """

    def __init__(
        self,
        storage: Callable[[torch.dtype, str, int], Storage] | None = None,
        from_bytes: Callable[[bytes], Any] | None = None,
        unread: dict[str, None] | None = None,
    ) -> None:
        self.storage, self.from_bytes = storage, from_bytes
        self.unread = {} if unread is None else unread
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.converted: dict[int, tuple[Any, Any]] = {}

    def run(self, stream: BinaryIO | mmap.mmap) -> Any:
        """Returns the object of the pickle at the stream's position, which moves behind it.

        Raises:
            Refused: it asks for something that no checkpoint needs.
            Exception: of several kinds, when it is damaged.
        """
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise Refused(f"it holds the operation {opcode.name}, which no checkpoint needs")
        (result,) = self.stack
        return result

    def marked(self) -> list[Any]:
        """Takes everything above the last mark off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, value: Any) -> None:
        """Puts an object on the stack."""
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        """Takes the topmost objects off the stack, in the order in which they were put."""
        if count > len(self.stack):
            raise IndexError("its stack is too short")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def keep(self, index: int) -> None:
        """Remembers the topmost object."""
        self.memo[index] = self.stack[-1]

    def once(self, source: Any, convert: Callable[[Any], Any]) -> Any:
        """Returns the conversion of an object; the same object is converted once, however often it is asked for."""
        if id(source) not in self.converted:
            self.converted[id(source)] = source, convert(source)
        return self.converted[id(source)][1]

    def put_name(self, module: Any, name: Any) -> None:
        """Puts a global, which is a name and nothing else."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        full = f"{_OLD_MODULES.get(module, module)}.{name}"
        if self.from_bytes is None and full not in _VALUES:
            raise Refused(f"it names {full[:80]!a} where only types of storages may stand")
        self.put(_Named(full))

    def put_new(self, cls: Any) -> None:
        """Puts an object of a class, without its state."""
        self.put(self._opaque(cls))

    def put_instance(self, module: str, name: str) -> None:
        """Puts an object of the class of a name, whose arguments stand above the last mark."""
        self.marked()
        self.put_name(module, name)
        self.put_new(self.take(1)[0])

    def call(self) -> None:
        """Replaces a function and its arguments by the result."""
        function, arguments = self.take(2)
        if isinstance(function, _Named) and function.name in _CALLS and isinstance(arguments, tuple):
            self.put(_CALLS[function.name](self, *arguments))
        else:
            self.put(self._opaque(function))

    def _opaque(self, cls: Any) -> Record:
        """A record of something whose class or function is not obeyed; its arguments are dropped."""
        full = cls.name if isinstance(cls, _Named) else "something without a name"
        if not _CLASS.fullmatch(full):
            self.unread[full] = None
        return Record(full.rpartition(".")[2])

    def put_stored(self) -> None:
        """Replaces a persistent id by its storage."""
        (identity,) = self.take(1)
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            self.put(identity[1])  # the older container keeps the source text beside a module's class
            return
        if self.storage is None or not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise ValueError("a reference to something outside of it")
        kind, cls, key, _, numel, *view = identity
        if kind != "storage" or not isinstance(cls, _Named) or not isinstance(key, str | int):
            raise ValueError("a storage without a type or a key")
        if type(numel) is not int or numel < 0:
            raise ValueError("a storage of negative size")
        dtype = _DTYPES.get(cls.name)
        if dtype is None or view not in ([], [None]):
            self.put(self._opaque(cls))
            return
        self.put(self.storage(dtype, str(key), numel))

    def set_items(self, pairs: list[Any]) -> None:
        """Adds entries to the topmost dictionary."""
        target = self.stack[-1]
        items = target.items if isinstance(target, Record) else target
        if not isinstance(items, dict):
            raise ValueError("entries of something that is no dictionary")
        items.update(_paired(pairs))

    def extend(self, items: list[Any]) -> None:
        """Adds members to the topmost list; those of another object are left out."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], Record):
            raise ValueError("members of something that is no list")

    def build(self) -> None:
        """Gives the topmost object its attributes, where they are a dictionary of names; others are left out."""
        (state,), target = self.take(1), self.stack[-1]
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0]
        if isinstance(target, Record) and target.name != _NUMBER and _are_attributes(state):
            target.state = state

    def drop(self) -> None:
        """Drops the topmost object or mark."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.take(1)


def _paired(pairs: list[Any]) -> dict[Any, Any]:
    return {key: value for key, value in zip(pairs[::2], pairs[1::2], strict=True) if isinstance(key, _KEYS)}


def _are_attributes(state: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(state, dict) and all(isinstance(name, str) for name in state)


def _tensor(_: Machine, storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *more: Any) -> Any:
    """A tensor over a storage, refused unless it lies inside and is no larger; over an unknown storage, a record."""
    if isinstance(storage, Record):
        return storage
    if not isinstance(storage, Storage) or len(size) > _MOST_DIMENSIONS:
        raise ValueError("a tensor without a storage, or of too many dimensions")
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError("a tensor of negative size")
    available, count = len(storage.data) // storage.dtype.itemsize, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
    if count > available or last >= max(available, 1):
        raise ValueError("a tensor larger than its storage")
    data = storage.data[: available * storage.dtype.itemsize].view(storage.dtype)
    return data.as_strided(tuple(size), tuple(stride), offset if count else 0)


def _storage_of_bytes(machine: Machine, data: Any) -> Any:
    if machine.from_bytes is None or not isinstance(data, bytes):
        raise ValueError("the bytes of a storage are no bytes")
    return machine.once(data, machine.from_bytes)


def _bytes_of_text(machine: Machine, text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are no latin1 text")
    return machine.once(text, lambda given: given.encode("latin1"))


def _persistent(_: Machine, meta: Any) -> Record:
    """EDM's persistent object; the source text that comes with it is left unread."""
    meta = meta.items if isinstance(meta, Record) else meta
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise ValueError("a persistent object without its class name")
    state = meta.get("state")
    return Record(meta["class_name"], state if _are_attributes(state) else {})


def _subclass(machine: Machine, function: Any, cls: Any, arguments: Any, *more: Any) -> Any:
    """A tensor with a class or attributes of its own, as the plain tensor."""
    name = function.name if isinstance(function, _Named) else ""
    if name not in _TENSORS or not isinstance(arguments, tuple):
        return Record("a tensor of another kind")
    return _CALLS[name](machine, *arguments)


_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
_NUMBER = "a number of numpy"
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda _, pairs=(): _paired([part for key, value in pairs for part in (key, value)]),
    "collections.defaultdict": lambda _, *parts: {},
    "builtins.set": lambda _, members=(): members,
    "torch.Size": lambda _, sizes: sizes,
    "torch.device": lambda _, *parts: Record("device"),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda _, data, *more: data,
    "torch._utils._rebuild_parameter_with_state": lambda _, data, *more: data,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.storage._load_from_bytes": _storage_of_bytes,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "numpy.dtype": lambda _, *parts: Record(_NUMBER),
    "numpy.core.multiarray.scalar": lambda _, *parts: Record(_NUMBER),
    "numpy._core.multiarray.scalar": lambda _, *parts: Record(_NUMBER),
    "_codecs.encode": _bytes_of_text,
}
_LITERALS = {
    "INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8",
}  # fmt: skip
_STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "STOP": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.drop(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.put(m.stack[-1]),
    "NONE": lambda m, _: m.put(None),
    "NEWTRUE": lambda m, _: m.put(True),
    "NEWFALSE": lambda m, _: m.put(False),
    "EMPTY_LIST": lambda m, _: m.put([]),
    "EMPTY_SET": lambda m, _: m.put([]),
    "EMPTY_TUPLE": lambda m, _: m.put(()),
    "EMPTY_DICT": lambda m, _: m.put({}),
    "LIST": lambda m, _: m.put(m.marked()),
    "FROZENSET": lambda m, _: m.put(m.marked()),
    "TUPLE": lambda m, _: m.put(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.put(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.put(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.put(tuple(m.take(3))),
    "DICT": lambda m, _: m.put(_paired(m.marked())),
    "APPEND": lambda m, _: m.extend(m.take(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "ADDITEMS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.set_items(m.take(2)),
    "SETITEMS": lambda m, _: m.set_items(m.marked()),
    "BINGET": lambda m, index: m.put(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.put(m.memo[index]),
    "BINPUT": lambda m, index: m.keep(index),
    "LONG_BINPUT": lambda m, index: m.keep(index),
    "MEMOIZE": lambda m, _: m.keep(len(m.memo)),
    "GLOBAL": lambda m, names: m.put_name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.put_name(*m.take(2)),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.put_new(m.take(2)[0]),
    "NEWOBJ_EX": lambda m, _: m.put_new(m.take(3)[0]),
    "OBJ": lambda m, _: m.put_new(m.marked()[0]),
    "INST": lambda m, names: m.put_instance(*names.split(" ", 1)),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.put_stored(),
}
