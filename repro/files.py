"""Files that appear whole or not at all, and the folder where downloads and computed features are kept."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from repro.errors import UserError

__all__ = ["cache_folder", "sha256_of_file", "write_text", "write_whole"]


@contextmanager
def write_whole(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its name only when it is complete and on the disk.

    The bytes go to a hidden file of the same folder, are flushed to the disk, and the file is then renamed. Whatever
    goes wrong before (no space left, a signal, an exception of the caller) leaves the old file, or none.

    Args:
        path: The file; its folder must exist.
        overwrite: False leaves an existing file as it is and raises FileExistsError.

    Raises:
        UserError: the file cannot be written (disk full, no permission), with the reason of the system.

    Example:
        >>> with write_whole("runs/note.txt") as file:  # doctest: +SKIP
        ...     file.write(b"whole")
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        try:
            with open(aside, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(aside, path, overwrite)
        except FileExistsError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"cannot write {path}: {reason}; nothing was changed there, make room or name another folder"
            ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _publish(aside: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(aside, path)
    else:
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(path) from None
            os.replace(aside, path)
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: str | os.PathLike[str], text: str, overwrite: bool = True) -> None:
    """Writes a UTF-8 text file whole or not at all; see :func:`write_whole`."""
    with write_whole(path, overwrite) as file:
        file.write(text.encode())


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(*parts: str, make: bool = True) -> Path:
    """A folder of this user's cache: ``$REPRO_CACHE``, or ``$XDG_CACHE_HOME/repro``, or ``~/.cache/repro``.

    Args:
        *parts: Folders inside it.
        make: Make it when it is missing.
    """
    root = os.environ.get("REPRO_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "repro"
    folder = Path(root).joinpath(*parts)
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the cache folder {folder}: {error.strerror}; set REPRO_CACHE to a folder you may write"
            ) from error
    return folder
