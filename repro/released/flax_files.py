"""Files that JAX projects wrote with flax: nested mappings of names in MessagePack, their arrays as tensors.

The container is read by ``msgpack`` and holds data only. Text keys, arrays (extension 1), complex numbers (2) and numpy
scalars (3) are all that flax writes; lists and tuples are mappings with the keys "0", "1", and so on.

Source: the layout of ``flax.serialization``.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from repro.errors import UserError

__all__ = ["read_flax"]

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
    )
}  # fmt: skip
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_LIST, _MOST_DIMENSIONS, _DEEPEST = 64, 16, 64
_DAMAGE = (ValueError, TypeError, KeyError, OverflowError, RuntimeError, MemoryError, RecursionError)


def read_flax(path: Path) -> dict[str, Any]:
    """Reads a file of ``flax.serialization`` into nested dictionaries of plain values and tensors.

    Nothing of it is executed. What is built is no larger than a few times the file.

    Args:
        path: The file.

    Raises:
        UserError: it cannot be read, is damaged or cut off, or holds another kind of object.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            content_of = msgpack.unpackb(content, ext_hook=_extension, strict_map_key=True, max_array_len=_LONGEST_LIST)
            return _whole(content_of)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgpack.UnpackException, *_DAMAGE) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"cannot read {path}, a msgpack file: damaged or cut off ({ascii(reason)[1:-1]})") from error


def _extension(code: int, data: bytes) -> Any:
    if code not in (_ARRAY, _COMPLEX, _SCALAR):
        raise ValueError(f"an object of the extension {code}, which flax does not write")
    parts = msgpack.unpackb(data, max_array_len=_MOST_DIMENSIONS, max_ext_len=0)
    if code == _COMPLEX:
        return complex(*parts)
    shape, name, buffer = parts
    if not all(type(n) is int and n >= 0 for n in shape) or name not in _DTYPES or not isinstance(buffer, bytes):
        raise ValueError("an array of an unknown type or shape")
    dtype = _DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise ValueError("an array of another size than its shape says")
    array = torch.frombuffer(bytearray(buffer), dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
    return array.reshape(shape)


def _whole(node: Any, depth: int = 0) -> Any:
    """The node with arrays that were cut into chunks put together."""
    if not isinstance(node, dict):
        return node
    if depth > _DEEPEST:
        raise ValueError("mappings nested too deep")
    if _CHUNKED not in node:
        return {key: _whole(value, depth + 1) for key, value in node.items()}
    shape, chunks = (list(node[part].values()) for part in ("shape", "chunks"))
    if not all(isinstance(chunk, Tensor) and chunk.ndim == 1 for chunk in chunks):
        raise ValueError("an array in chunks that are no arrays")
    return torch.cat(chunks).reshape([int(size) for size in shape])
