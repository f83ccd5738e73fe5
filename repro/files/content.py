"""What a file's bytes are: their checksum, and what NumPy raises over those that are no array."""

from __future__ import annotations

import hashlib
import os
import struct
import tokenize
import zipfile
import zlib

__all__ = ["BROKEN_ARRAY", "sha256_of_file"]

BROKEN_ARRAY = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy raises, by experience, over an ``.npy`` or ``.npz`` file that is damaged or made to do harm."""


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
