"""A folder, zip or tar of images."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from repro.data.base import IN_MEMORY_BYTES, ImageData
from repro.data.cache import DecodedCache, Listing
from repro.data.labels import classes_of, is_label_file, labels_in_file
from repro.data.members import IMAGE_SUFFIXES, Members, open_members
from repro.data.pixels import (
    COLOUR_MODES,
    GREY_MODES,
    fit_pixels,
    has_sixteen_bits,
    is_transparent,
    to_eight_bits,
    turn_of,
    upright_size,
)
from repro.data.progress import slow_progress
from repro.data.source import ArraySource, ImageSource
from repro.errors import UserError

__all__ = ["CACHED_IMAGES", "PIXEL_LIMIT", "EncodedSource", "ImageArchive"]

PIXEL_LIMIT = 2**26
"""Most pixels of one image."""
CACHED_IMAGES = 1000
"""Smaller sets are decoded afresh each time."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_NAMED = 10

_log = logging.getLogger(__name__)


class ImageArchive(ImageData):
    """The images in a folder, a zip, or a tar (plain, .xz, .gz, .bz2); nothing is unpacked to disk.

    The class of an image is the name of the folder it lies in, and classes are numbered in natural order (2 before
    10); images that all lie at the top have no classes, nor have those in folders that only cut a numbered series into
    pieces (``00000``, ``00001``, ...). An EDM data set, with its ``dataset.json`` beside the images or one folder up,
    gives its own labels. Images are taken in name order, so a folder and an archive of the same tree are the same
    data. Hidden folders and those that systems leave (``@eaDir``, ``__MACOSX``, ...) are passed over.

    PNG, JPEG, WebP, BMP, GIF (first frame), TIFF and PPM are read as a viewer shows them: turned as their EXIF
    orientation says, the background behind what is transparent, 16 bits a channel scaled to 8. What was done to how
    many images is said once. The set is grey when every image is, else all become RGB. All images must have one size,
    unless ``resize`` is given.

    Limits against archives made to do harm: 5 million images, 64 MiB and 67 million pixels an image, 100 times the
    archive's size once 64 MiB come out of it, 4 GiB of image files in a packed tar. A member whose name leaves the
    archive, a link or a device is refused.

    Args:
        path: The folder or archive.
        labelled: Whether the folders are classes; False ignores them.
        cache: Whether a set of 1,000 images or more, at most 4 GiB decoded, is kept decoded in ``$REPRO_CACHE`` (or
            ``~/.cache/repro``) for the next run; checked when read, and made again when the files change.
        background: Grey level, 0 (black) to 255 (white), behind what is transparent.
        common: As of every data set.

    Raises:
        UserError: a background out of its range; on first use: nothing at ``path``, no image, a broken archive, several
            sizes; broken images, all of them named before the first is used.
    """

    def __init__(
        self, path: str, *, labelled: bool = True, cache: bool = True, background: int = 255, **common: Any
    ) -> None:
        super().__init__(**common)
        if not 0 <= background <= 255:
            raise UserError(f"background is {background}; give 0 (black) to 255 (white)")
        self.path, self.labelled, self.cache, self.background = path, labelled, cache, background

    def open_source(self) -> ImageSource:
        """Lists the images, or finds them decoded in the cache; decodes none."""
        members = open_members(self.path)
        cache = None
        if self.cache:
            digest = hashlib.sha256()
            for part in members.stamp():
                digest.update(part)
            cache = DecodedCache(
                f"{digest.hexdigest()} {self.resize} {self.grayscale} {self.labelled} {self.background}"
            )
            if (kept := cache.load()) is not None:
                listing, images = kept
                _say_changes(members, listing, self.background)
                return ArraySource(torch.from_numpy(images), *_classes(members, listing, self.labelled))
        listing = _look(members, self.resize, self.grayscale, self.labelled)
        _say_changes(members, listing, self.background)
        kept_decoded = CACHED_IMAGES <= len(listing.names) <= IN_MEMORY_BYTES / math.prod(listing.image_shape)
        return EncodedSource(members, listing, self.resize, self.background, cache, kept_decoded, self.labelled)


class EncodedSource(ImageSource):
    """Images that are decoded as they are read, or all at once when they are kept decoded in the cache."""

    def __init__(
        self,
        members: Members,
        listing: Listing,
        resize: int | None,
        background: int,
        cache: DecodedCache | None,
        kept_decoded: bool,
        labelled: bool,
    ) -> None:
        self.members, self.listing, self.resize, self.background = members, listing, resize, background
        self.cache, self.kept_decoded = cache, kept_decoded and cache is not None
        labels, class_names = _classes(members, listing, labelled)
        self.labels, self.class_names = torch.tensor(labels, dtype=torch.int64), tuple(class_names)
        self.image_shape = listing.image_shape
        self._decoded: ArraySource | None = None

    def prepare(self) -> None:
        if not self.kept_decoded or self.cache is None or self._decoded is not None:
            return
        if (kept := self.cache.load()) is not None:  # another process was faster
            self._decoded = ArraySource(torch.from_numpy(kept[1]))
        else:
            images = self._decode(np.arange(len(self)))
            self.cache.save(self.listing, images.numpy())
            self._decoded = ArraySource(images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        self.prepare()
        return self._decode(indices) if self._decoded is None else self._decoded.read(indices)

    def check(self, indices: NDArray[np.int64]) -> None:
        """Decodes every image once, in threads, and remembers that it could."""
        if self._decoded is not None or (self.cache is not None and self.cache.was_checked(indices)):
            return
        with (
            ThreadPoolExecutor(os.cpu_count()) as threads,
            slow_progress(f"checking {self.members.path.name}", len(indices)) as done,
        ):
            broken = []
            for number, error in enumerate(threads.map(self._flaw_of, indices)):
                broken += [error] if error else []
                done(number + 1)
        _raise_all(self.members, broken)
        if self.cache is not None:
            self.cache.mark_checked(indices)

    def _flaw_of(self, index: int) -> UserError | None:
        try:
            self._pixels(index)
        except UserError as error:
            return error
        return None

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        with _opened(self.members, self.listing.names[index]) as (picture, data):
            if has_sixteen_bits(picture, data):
                picture = to_eight_bits(data)
            return fit_pixels(picture, self.image_shape[0], self.resize, self.background)

    def _decode(self, indices: NDArray[np.int64]) -> Tensor:
        images: NDArray[np.uint8] = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        broken = []
        with slow_progress(f"decoding {self.members.path.name}", len(images)) as done:
            for row, index in enumerate(indices):
                try:
                    images[row] = self._pixels(index)
                except UserError as error:
                    broken.append(error)
                done(row + 1)
        _raise_all(self.members, broken)
        return torch.from_numpy(images)


class _BrokenImage(UserError):
    """One image that cannot be used; ``short`` says which and why without naming the set."""

    short = ""


def _broken(members: Members, name: str, reason: str) -> _BrokenImage:
    error = _BrokenImage(f"{members.path}: image {name!r} {reason}; remove or replace it")
    error.short = f"{name!r} {reason}"
    return error


def _raise_all(members: Members, errors: Sequence[UserError]) -> None:
    """Raises one error for all; nothing when there are none."""
    errors = sorted(errors, key=str)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        named = "; ".join(error.short if isinstance(error, _BrokenImage) else str(error) for error in errors[:_NAMED])
        more = f"; and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
        raise UserError(f"{members.path}: {len(errors):,} images cannot be used, remove or replace them: {named}{more}")


@contextmanager
def _opened(members: Members, name: str) -> Iterator[tuple[Image.Image, bytes]]:
    """An image, its header read, and the bytes of its file; whatever its decoder stumbles over is told in one line."""
    data = members.read(name)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            yield picture, data
    except _BrokenImage:
        raise
    except UserError as error:
        raise _broken(members, name, str(error)) from error
    except Image.UnidentifiedImageError as error:
        raise _broken(members, name, "is not an image of a known format") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _broken(members, name, f"cannot be decoded: {reason}") from error


def _look(members: Members, resize: int | None, grayscale: bool, labelled: bool) -> Listing:
    """Reads every header: the shape they share, or the error that names those which differ."""
    names = [name for name in members.names if not is_label_file(name)]
    if not names:
        raise UserError(
            f"{members.path} holds no image: none of its {members.passed_over} files ends in {' '.join(IMAGE_SUFFIXES)}"
        )
    broken: list[UserError] = []
    changes: dict[str, tuple[int, str]] = {}
    sizes: dict[tuple[int, int], str] = {}
    all_grey = True
    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
        slow_progress(f"looking through {members.path.name}", len(names)) as done,
    ):
        for number, name in enumerate(names):
            done(number + 1)
            try:
                with _opened(members, name) as (picture, data):
                    size, grey, kinds = _header(picture, data)
            except UserError as error:
                broken.append(error)
                continue
            sizes.setdefault(size, name)
            all_grey = all_grey and grey
            for kind in kinds:
                count, first = changes.get(kind, (0, name))
                changes[kind] = count + 1, first
    _raise_all(members, broken)
    (width, height), *others = sizes
    if others and resize is None:
        other = others[0]
        raise UserError(
            f"{members.path} holds images of several sizes: {sizes[width, height]!r} is {width}x{height}, "
            f"{sizes[other]!r} is {other[0]}x{other[1]}; --data.resize {min(width, height, *other)} would crop their "
            "centre squares and scale them"
        )
    shape = (1 if all_grey or grayscale else 3, resize or height, resize or width)
    return Listing(names, shape, labels_in_file(members, names) if labelled else None, changes)


def _header(picture: Image.Image, data: bytes) -> tuple[tuple[int, int], bool, list[str]]:
    """Width and height as shown, whether it is grey, and what is done to its pixels before they are used."""
    width, height = upright_size(picture)
    if width * height > PIXEL_LIMIT:
        raise UserError(f"is {width}x{height}; at most {PIXEL_LIMIT:,} pixels are decoded")
    if picture.mode not in GREY_MODES | COLOUR_MODES:
        raise UserError(f"has pixels of mode {picture.mode}, which is not 8 or 16 bits a channel")
    deep = has_sixteen_bits(picture, data)
    grey = picture.mode in GREY_MODES or (deep and data[_PNG_COLOUR_TYPE] in _PNG_GREY)
    kinds = {"turned": turn_of(picture) != 1, "transparent": is_transparent(picture), "deep": deep}
    return (width, height), grey, [kind for kind, holds in kinds.items() if holds]


_PNG_COLOUR_TYPE = 25
_PNG_GREY = (0, 4)
_CHANGES = {
    "turned": "are turned as their EXIF orientation says",
    "transparent": "have transparent pixels, which show the background {background}",
    "deep": "have 16 bits a channel, which are scaled to 8",
}


def _say_changes(members: Members, listing: Listing, background: int) -> None:
    for kind, (count, name) in listing.changes.items():
        what = _CHANGES[kind].format(background=background)
        _log.warning("%s: %s of %s images %s, for example %r", members.path, count, len(listing.names), what, name)


def _classes(members: Members, listing: Listing, labelled: bool) -> tuple[list[int], list[str]]:
    """The class of every image, and the names of the classes."""
    if not labelled or listing.labels == []:
        return [0] * len(listing.names), []
    if listing.labels is not None:
        return listing.labels, [str(label) for label in range(max(listing.labels) + 1)]
    return classes_of(str(members.path), listing.names)
