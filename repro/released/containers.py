"""What kind of file something is, by its first bytes, and the reader of its kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.released.flax_files import read_flax
from repro.released.pickles import read_pickled

__all__ = ["FLAX", "PICKLE", "SAFETENSORS", "kind_of", "read_content"]

PICKLE, SAFETENSORS, FLAX = "a pickle", "a safetensors file", "a flax file of JAX (msgpack)"

_FIRST = 512
_MOST_HEADER = 100_000_000
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (r"\x1f\x8b", "a gzip archive", "unpack it first (gunzip, or tar -xzf) and name the file inside"),
    (
        r"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!",
        "a compressed archive",
        "unpack it first and name the file inside",
    ),
    (r".{257}ustar", "a tar archive", "unpack it first (tar -xf) and name the file inside"),
    (
        r"version https://git-lfs",
        "a pointer of git-lfs, not the file itself",
        "fetch it where it was cloned: git lfs pull",
    ),
    (
        r"\s*(<!doctype html|<html|<\?xml|<head)",
        "a web page, not the weights",
        "the download was answered with a page; download it again, in a browser if it asks for a login",
    ),
    (r"\x89HDF\r\n", "an HDF5 file, as Keras writes them", "no format here reads it"),
    (r"\x93NUMPY", "a numpy array", "no format here reads it"),
    (r"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM.{4}\0\0\0\0", "an image", "name the file with the weights"),
    (r"%PDF", "a PDF document", "name the file with the weights"),
    (r"GGUF", "a GGUF file of a language model", "no format here reads it"),
    (r"\s*[{\[]\s*[\"}\[\]0-9]", "a text file in JSON", "name the file with the weights"),
)


def kind_of(path: Path) -> str:
    """Returns what kind of file this is, in words, by its first bytes.

    Raises:
        UserError: it is empty, cannot be read, or of a kind that holds no weights; the message names the kind.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            first = file.read(_FIRST)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not first:
        raise UserError(f"{path} is empty")
    if first[:4] == b"PK\x03\x04" or (first[:1] == b"\x80" and first[1:2] <= b"\x05"):
        return PICKLE
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= min(size - 8, _MOST_HEADER):
        return SAFETENSORS
    for pattern, kind, remedy in _OTHERS:
        if re.match(pattern.encode("latin1"), first, re.DOTALL | re.IGNORECASE):
            raise UserError(f"cannot read {path}: it is {kind}; {remedy}")
    if first[:1] in b"\xde\xdf" or 0x81 <= first[0] <= 0x8F:
        return FLAX
    raise UserError(
        f"cannot read {path}: it is neither a pickle nor a file of torch.save, safetensors or flax (msgpack)"
    )


def read_content(path: Path, unread: dict[str, None]) -> Any:
    """Reads a file of weights into plain data, tensors and records, executing nothing of it.

    Args:
        path: A pickle, a file of ``torch.save`` in either container, of safetensors, or of flax.
        unread: Takes the names of pickled classes and functions that are not obeyed, as its keys.

    Raises:
        UserError: as :func:`kind_of`; damaged, cut off, or refused.
    """
    readers = {SAFETENSORS: _read_safetensors, FLAX: read_flax}
    kind = kind_of(path)
    return read_pickled(path, unread) if kind == PICKLE else readers[kind](path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"cannot read {path}, a safetensors file: damaged or cut off ({ascii(reason)[1:-1]})"
        ) from error
