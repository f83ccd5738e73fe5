"""The image files inside a folder, a zip or a tar, by name: listed with care, read without unpacking anything.

An archive is written by a stranger: a member whose name leaves the archive, a link, a device, or more bytes than the
limits below is an error that names it, before any image is decoded. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from repro.data.names import clean_name, is_hidden
from repro.data.progress import slow_progress
from repro.errors import UserError, nearest

__all__ = ["COUNT_LIMIT", "FILE_LIMIT", "IMAGE_SUFFIXES", "LABEL_FILE", "PACKED_LIMIT", "Members", "open_members"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Names that end so, in small or capital letters, are images; other files are passed over."""
LABEL_FILE = "dataset.json"
"""The file of labels of EDM's data sets, in the folder that holds all images."""
FILE_LIMIT = 64 * 2**20
"""Most bytes of one file."""
COUNT_LIMIT = 5_000_000
"""Most images of one set."""
PACKED_LIMIT = 4 * 2**30
"""Most bytes of images in a compressed tar, which are kept in memory."""
RATIO_LIMIT = 100
"""Most bytes that may come out of an archive for each byte of it ..."""
RATIO_FREE = 64 * 2**20
"""... once they are more than this."""
_HEADER_LIMIT = 2**20

_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\xfd7zXZ\0": lzma.open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
}
"""How the compressed formats begin, and what unpacks them."""

_BROKEN = (
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    struct.error,
    lzma.LZMAError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class Members(ABC):
    """Image files by name.

    Args:
        path: The folder or archive.

    Attributes:
        passed_over: How many files were not images; known after :attr:`names`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over = 0

    @functools.cached_property
    def names(self) -> list[str]:
        """Relative names of the images, and of the label file, with forward slashes, sorted; hidden ones left out.

        Raises:
            UserError: a broken or a dangerous archive.
        """
        with _one_line(self.path):
            return sorted(self._list())

    @abstractmethod
    def _list(self) -> list[str]: ...

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Reads the bytes of one of the files in :attr:`names`.

        Raises:
            UserError: it cannot be read.
        """

    def stamp(self) -> Iterator[bytes]:
        """Bytes that change when the files change: size, time, beginning and end of an archive, names, sizes and
        times of a folder."""
        status = self.path.stat()
        yield f"{status.st_size} {status.st_mtime_ns} ".encode()
        with _one_line(self.path), open(self.path, "rb") as file:
            yield file.read(2**20)
            file.seek(max(0, status.st_size - 2**16))
            yield file.read()


def open_members(path: str | os.PathLike[str]) -> Members:
    """Finds a folder, a zip, or a tar that is plain or packed with xz, gzip or bzip2, told by content, not by name.

    Raises:
        UserError: nothing there (names the nearest sibling), or another format.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        guess = f"; did you mean {path.with_name(near)}?" if near else "; give a folder, zip or tar of images"
        raise UserError(f"{path} does not exist{guess}")
    with _one_line(path), open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return _Zip(path)
    for magic, opener in _PACKED.items():
        if head.startswith(magic):
            return _PackedTar(path, opener)
    if head[257:262] == b"ustar":
        return _Tar(path)
    raise UserError(f"{path} is neither a folder, a zip nor a tar (plain, .xz, .gz or .bz2); give one of these")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read: {reason}; if it is corrupt or truncated, get it again") from error


def _is_wanted(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) or name.rpartition("/")[2] == LABEL_FILE


class _Budget:
    """Looks at the members of an archive as they are listed, and refuses what is beyond the limits."""

    def __init__(self, members: Members, total_limit: int | None = None) -> None:
        self.members, self.path, self.total_limit = members, members.path, total_limit
        self.allowed = max(RATIO_FREE, RATIO_LIMIT * self.path.stat().st_size)
        self.total = 0
        self.names: set[str] = set()

    def clean(self, raw: str) -> str:
        """A member's name as relative parts joined by slashes."""
        parts = raw.replace("\\", "/").split("/")
        if parts[0] == "" or parts[0][1:2] == ":" or ".." in parts or "\0" in raw:
            raise UserError(f"{self.path}: member {raw!r} points outside of the archive; do not trust this file")
        return clean_name(raw)

    def take(self, raw: str, size: int, special: bool) -> str:
        """The clean name of a member that may be read; empty when it is passed over."""
        name = self.clean(raw)
        if special:
            raise UserError(f"{self.path}: member {raw!r} is a link or a device; pack plain files only")
        if is_hidden(name):
            return ""
        if not _is_wanted(name):
            self.members.passed_over += 1
            return ""
        if size > FILE_LIMIT:
            raise UserError(f"{self.path}: member {raw!r} has {size:,} bytes; at most {FILE_LIMIT:,} an image are read")
        if name in self.names:
            raise UserError(f"{self.path}: two members are named {name!r}; pack it again without the double")
        self.names.add(name)
        self.total += size
        if self.total > self.allowed:
            raise self.bomb(raw)
        if self.total_limit is not None and self.total > self.total_limit:
            raise UserError(
                f"{self.path} holds more than {self.total_limit:,} bytes of images, too many for a packed tar, "
                "which is kept in memory; unpack it and give the folder"
            )
        if len(self.names) > COUNT_LIMIT:
            raise UserError(f"{self.path} holds more than {COUNT_LIMIT:,} images; give a smaller set")
        return name

    def bomb(self, raw: str) -> UserError:
        """The error for an archive that holds too much."""
        return UserError(
            f"{self.path} unpacks to more than {RATIO_LIMIT} times its size (at member {raw!r}); "
            "it looks like a decompression bomb and was not read"
        )


class _Folder(Members):
    def _list(self) -> list[str]:
        self._files: dict[str, tuple[str, str]] = {}
        self._walk(self.path, "")
        return list(self._files)

    def _walk(self, folder: Path, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                raw = prefix + entry.name
                name = clean_name(raw)
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._walk(Path(entry.path), f"{raw}/")
                elif not (_is_wanted(name) and entry.is_file()):
                    self.passed_over += 1
                elif name in self._files:
                    raise UserError(
                        f"{self.path}: two files are named {name!r}, with accents written in two ways; remove one"
                    )
                else:
                    status = entry.stat()
                    self._files[name] = raw, f"{status.st_size} {status.st_mtime_ns}"
                    if len(self._files) > COUNT_LIMIT:
                        raise UserError(f"{self.path} holds more than {COUNT_LIMIT:,} images; give a smaller set")

    def read(self, name: str) -> bytes:
        path = self.path / self._files[name][0]
        with _one_line(path), open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise UserError(f"{path} has more than the {FILE_LIMIT:,} bytes that are read of an image")
        return data

    def stamp(self) -> Iterator[bytes]:
        for name in self.names:
            yield f"{name}\0{self._files[name][1]}\0".encode(errors="surrogateescape")


class _Zip(Members):
    _open: tuple[int, zipfile.ZipFile] | None = None

    def _list(self) -> list[str]:
        budget = _Budget(self)
        self._raw: dict[str, str] = {}
        for info in self._archive().infolist():
            special = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
            if info.is_dir() and not special:
                budget.clean(info.filename)
            elif name := budget.take(_zip_name(info), info.file_size, special):
                if info.flag_bits & 1:
                    raise UserError(f"{self.path}: member {name!r} is encrypted; pack it without a password")
                self._raw[name] = info.filename
        return list(self._raw)

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.path)
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def read(self, name: str) -> bytes:
        with _one_line(self.path / name):
            return self._archive().read(self._raw[name])


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member; names in UTF-8 that do not say so are read as what they are."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


class _StrictTarInfo(tarfile.TarInfo):
    """A header that is broken or missing is an error, not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end mark; a private name of tarfile
                raise
            raise tarfile.ReadError(f"{error} where a member or the end mark should be") from error
        if not header.isreg() and header.size > _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def _take(budget: _Budget, member: tarfile.TarInfo) -> str:
    if member.isdir():
        budget.clean(member.name + "/")
        return ""
    return budget.take(member.name, member.size, not member.isreg() or member.issparse())


class _Tar(Members):
    def _list(self) -> list[str]:
        self._places: dict[str, tuple[int, int]] = {}
        budget = _Budget(self)
        with tarfile.open(self.path, "r:", tarinfo=_StrictTarInfo) as archive:
            for member in archive:
                if name := _take(budget, member):
                    self._places[name] = (member.offset_data, member.size)
        return list(self._places)

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        with _one_line(self.path / name), open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


class _PackedTar(Members):
    """A compressed tar can only be read from its beginning, so its files are kept, still as image files, in memory."""

    def __init__(self, path: Path, opener: Callable[[IO[bytes]], Any]) -> None:
        super().__init__(path)
        self._opener = opener

    def _list(self) -> list[str]:
        self._bytes: dict[str, bytes] = {}
        budget = _Budget(self, PACKED_LIMIT)
        size = self.path.stat().st_size
        with (
            open(self.path, "rb") as raw,
            self._opener(raw) as plain,
            slow_progress(f"reading {self.path.name}", size) as done,
        ):
            bounded = _Bounded(plain, budget)
            with tarfile.open(fileobj=bounded, mode="r|", bufsize=2**18, tarinfo=_StrictTarInfo) as archive:
                for member in archive:
                    bounded.member = member.name
                    if name := _take(budget, member):
                        content = archive.extractfile(member)
                        self._bytes[name] = content.read() if content is not None else b""
                        done(raw.tell())
            while bounded.read(2**20):
                pass
        return list(self._bytes)

    def read(self, name: str) -> bytes:
        return self._bytes[name]


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more bytes than the budget of its archive, headers included."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self.stream, self.budget, self.member, self.bytes = stream, budget, "", 0

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.bytes += len(data)
        if self.bytes > self.budget.allowed:
            raise self.budget.bomb(self.member)
        return data
