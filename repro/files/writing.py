"""Files that appear whole or not at all, and the folder where downloads and computed features are kept."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from repro.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: files are then written without locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["cache_folder", "locked", "make_folder", "sweep_parts", "write_text", "write_whole"]

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def write_whole(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its name only when it is complete and on the disk.

    The bytes go to a hidden file of the same folder, are flushed to the disk, and the file is then renamed. Whatever
    goes wrong before (no space left, a signal, an exception of the caller) leaves the old file, or none. What a killed
    process leaves is a part, which the next one that writes the file removes, or :func:`sweep_parts`.

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
    aside: Path | None = None
    try:
        try:
            sweep_parts(path.parent, path.name)
            file = _open_part(path)
            aside = Path(file.name)
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _publish(aside, path, overwrite)  # while the part is still locked, so that nobody sweeps it
        except FileExistsError:
            raise
        except (OSError, RuntimeError) as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            reason = refusal.strerror or str(refusal)
            raise UserError(
                f"cannot write {path}: {reason}; nothing was changed there, make room or name another folder"
            ) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's refusal that an exception is, or was raised over: torch's writer hides it behind its own error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _open_part(path: Path) -> BinaryIO:
    """A new hidden file beside ``path``, locked for as long as it is open."""
    while True:
        file = open(path.with_name(f".{path.name}.{secrets.token_hex(6)}.part"), "xb")  # noqa: SIM115
        if _lock(file.fileno(), wait=True) and os.fstat(file.fileno()).st_nlink == 0:  # swept before it was locked
            file.close()
            continue
        return file


def sweep_parts(folder: str | os.PathLike[str], name: str = "*") -> None:
    """Removes the parts that killed processes left in a folder; those of living processes are locked and stay.

    Args:
        folder: The folder.
        name: Of the file whose parts they are; of all by default.
    """
    name = name if name == "*" else glob.escape(name)
    for part in Path(folder).glob(f".{name}.*.part"):
        with contextlib.suppress(OSError), open(part, "rb") as file:
            if _lock(file.fileno(), wait=False):
                part.unlink(missing_ok=True)


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
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk, where the file system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_text(path: str | os.PathLike[str], text: str, overwrite: bool = True) -> None:
    """Writes a UTF-8 text file whole or not at all; see :func:`write_whole`."""
    with write_whole(path, overwrite) as file:
        file.write(text.encode())


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder and those above it, where they are missing, and puts their names on the disk.

    Raises:
        UserError: it cannot be made (no permission, a file of that name, a disk that is full).
    """
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}; name another one") from error
    return path


def _lock(number: int, wait: bool) -> bool:
    """Locks an open file against other processes; False when another one holds it or there are no locks here."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process is inside this block for an existing file, which may be replaced inside it.

    Raises:
        UserError: the file may not be written.
    """
    while True:
        try:
            file = open(path, "r+b")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; name another folder") from error
        with file:
            _lock(file.fileno(), wait=True)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # else it was replaced while this one waited
                yield
                return


def cache_folder(*parts: str, make: bool = True) -> Path:
    """Returns a folder of this user's cache: ``$REPRO_CACHE``, or ``$XDG_CACHE_HOME/repro``, or ``~/.cache/repro``.

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
