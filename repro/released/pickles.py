"""Files that other projects pickled, read without executing any of them.

A pickle is a program: unpickling one runs whatever it names. Here the program is only looked at. Operations that build
plain data are obeyed; a global is a name that is never imported; calling one of the few names that weights need
gives a tensor over bytes of the file or a plain container. Whatever else was pickled beside them (configurations,
paths, dates, random states, optimisers, whole modules) is a :class:`Record` with the name of its class, which a format
refuses where it needs more. So this executes as little as ``torch.load(weights_only=True)``, and reads what that
refuses. Every tensor lies inside the file's own bytes, so a small file cannot ask for much memory.

Source: the two containers of ``torch.save``.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from repro.errors import UserError
from repro.released.pickle_machine import Machine, Record, Refused, Storage

__all__ = ["Record", "read_pickled"]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, MemoryError, EOFError,
    OSError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def read_pickled(path: Path, unread: dict[str, None] | None = None) -> Any:
    """Returns what a pickle, or a file of ``torch.save`` in either container, holds: plain data, tensors and records.

    Args:
        path: The file. Tensors are views of it where its container allows; copy them before it changes.
        unread: Takes the full names of classes and functions that are not obeyed, as its keys.

    Raises:
        UserError: not such a file, damaged or cut off, or it asks for an operation that no checkpoint needs.
    """
    unread = {} if unread is None else unread
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        if content[: len(_ZIP)] == _ZIP:
            return _read_zip(content, unread)
        if content[: len(_PICKLE)] == _PICKLE:
            return _read_stream(content, content, unread)
    except Refused as refusal:
        raise UserError(f"refused to read {path}: {refusal}; nothing of it was run") from refusal
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"cannot read {path}: damaged or cut off ({ascii(reason)[1:-1]})") from error
    raise UserError(f"cannot read {path}: it is neither a pickle nor a file of torch.save")


def _bytes(content: mmap.mmap | bytearray, offset: int, count: int) -> Tensor:
    """Bytes of the file as a uint8 tensor, a view."""
    if not 0 <= offset <= offset + count <= len(content):
        raise ValueError("it ends too early")
    if not count:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8, count=count, offset=offset)


def _read_zip(content: mmap.mmap, unread: dict[str, None]) -> Any:
    """The zip container: ``NAME/data.pkl`` and one uncompressed member for each storage."""
    with zipfile.ZipFile(cast(IO[bytes], content)) as archive:  # a map reads and seeks as a file does
        members = {member.filename: member for member in archive.infolist()}
    programs = [name for name in members if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise ValueError("a zip file without the members that torch.save writes")
    folder = programs[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise Refused("it is a TorchScript program; save its state_dict() with torch.save")

    def member(name: str) -> Tensor:
        if name not in members:
            raise ValueError(f"member {name} is missing")
        entry = members[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"member {name} is compressed, which torch.save never does")
        names, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
        return _bytes(content, entry.header_offset + 30 + names + extra, entry.file_size)

    def storage(dtype: torch.dtype, key: str, numel: int) -> Storage:
        data = member(f"{folder}data/{key}")
        if len(data) < numel * dtype.itemsize or data.data_ptr() % dtype.itemsize:
            raise ValueError(f"storage {key} is shorter than its record says, or not aligned")
        return Storage(data, dtype)

    order = f"{folder}byteorder"
    if order in members and member(order).numpy().tobytes() != b"little":
        raise ValueError("written on a big-endian machine")
    program = member(programs[0]).numpy().tobytes()
    return Machine(storage, _storage_of, unread).run(io.BytesIO(program))


def _read_stream(
    stream: BinaryIO | mmap.mmap, content: mmap.mmap | bytearray, unread: dict[str, None], nested: bool = False
) -> Any:
    """A plain pickle, or torch's older container: magic number, version, platform, pickle, storage keys, bytes.

    Args:
        stream: The content as a file, at its start.
        content: The content.
        unread: As for :func:`read_pickled`.
        nested: Whether it is a storage inside a plain pickle, of which only the older container is legal.
    """
    from_bytes = None if nested else _storage_of
    first = Machine(from_bytes=from_bytes, unread=unread).run(stream)
    if not _is(first, _MAGIC):
        if nested:
            raise ValueError("a storage without its magic number")
        return first
    platform = _is(Machine().run(stream), _VERSION) and Machine().run(stream)
    if not isinstance(platform, dict) or platform.get("little_endian") is not True:
        raise ValueError("another version of the container, or written on a big-endian machine")
    storages: dict[str, Storage] = {}
    left = len(content)

    def storage(dtype: torch.dtype, key: str, numel: int) -> Storage:
        nonlocal left
        if key not in storages:
            left -= numel * dtype.itemsize
            if left < 0:
                raise ValueError("it ends before its storages do")
            storages[key] = Storage(torch.empty(numel * dtype.itemsize, dtype=torch.uint8), dtype)
        return storages[key]

    unpickled, keys = Machine(storage, from_bytes, unread).run(stream), Machine().run(stream)
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    _fill([storages[key] for key in keys], content, stream.tell())
    return unpickled


def _is(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _fill(storages: list[Storage], content: mmap.mmap | bytearray, offset: int) -> None:
    """Copies the bytes of storages, each behind its number of elements."""
    for storage in storages:
        (numel,) = struct.unpack_from("<q", content, offset)
        if numel * storage.dtype.itemsize != len(storage.data):
            raise ValueError("a storage has another size than its record says")
        storage.data.copy_(_bytes(content, offset + 8, len(storage.data)))
        offset += 8 + len(storage.data)


def _storage_of(data: bytes) -> Any:
    """The storage that a plain pickle holds as bytes of the older container."""
    return _read_stream(io.BytesIO(data), bytearray(data), {}, nested=True)
