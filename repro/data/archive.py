"""A folder, zip or tar of images."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from repro.data.base import IN_MEMORY_BYTES, ImageData
from repro.data.cache import DecodedCache, Listing
from repro.data.members import IMAGE_SUFFIXES, LABEL_FILE, Members, open_members
from repro.data.pixels import COLOUR_MODES, GREY_MODES, fit_pixels
from repro.data.progress import slow_progress
from repro.data.source import ArraySource, ImageSource
from repro.errors import UserError

__all__ = ["CACHED_IMAGES", "CLASS_LIMIT", "PIXEL_LIMIT", "ImageArchive"]

PIXEL_LIMIT = 2**26
"""Most pixels of one image."""
CACHED_IMAGES = 1000
"""Smaller sets are decoded afresh each time."""
CLASS_LIMIT = 2**20
"""Labels of a label file are below this."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


class ImageArchive(ImageData):
    """The images in a folder, a zip, or a tar (plain, .xz, .gz, .bz2); nothing is unpacked to disk.

    The class of an image is the name of the folder it lies in, and classes are numbered in name order; images that
    all lie at the top have no classes. An EDM data set, with its ``dataset.json`` at the top, gives its own labels.
    Images are taken in name order, so a folder and an archive of the same tree are the same data. PNG, JPEG, WebP,
    BMP, GIF (first frame), TIFF and PPM of 8 bits are read; the set is grey when every image is, else all become RGB,
    and alpha is dropped. All images must have one size, unless ``resize`` is given.

    Limits against archives made to do harm: 5 million images, 64 MiB and 67 million pixels an image, 100 times the
    archive's size once 64 MiB come out of it, 4 GiB of image files in a packed tar. A member whose name leaves the
    archive, a link or a device is refused.

    Args:
        path: The folder or archive.
        labelled: Whether the folders are classes; False ignores them.
        cache: Whether a set of 1,000 images or more, at most 4 GiB decoded, is kept decoded in ``$REPRO_CACHE`` (or
            ``~/.cache/repro``) for the next run; checked when read, and made again when the files change.
        common: As of every data set.

    Raises:
        UserError: on first use: nothing at ``path``, no image, a broken image or archive, several sizes.
    """

    def __init__(self, path: str, *, labelled: bool = True, cache: bool = True, **common: Any) -> None:
        super().__init__(**common)
        self.path, self.labelled, self.cache = path, labelled, cache

    def open_source(self) -> ImageSource:
        """Lists the images, or finds them decoded in the cache; decodes none."""
        members = open_members(self.path)
        cache = None
        if self.cache:
            digest = hashlib.sha256()
            for part in members.stamp():
                digest.update(part)
            cache = DecodedCache(f"{digest.hexdigest()} {self.resize} {self.grayscale} {self.labelled}")
            if (found := cache.load()) is not None:
                listing, images = found
                return ArraySource(torch.from_numpy(images), *_classes(members, listing, self.labelled))
        listing = _look(members, self.resize, self.grayscale, self.labelled)
        if not CACHED_IMAGES <= len(listing.names) <= IN_MEMORY_BYTES / math.prod(listing.image_shape):
            cache = None
        return _EncodedSource(members, listing, self.resize, cache, *_classes(members, listing, self.labelled))


class _EncodedSource(ImageSource):
    """Images that are decoded as they are read, or all at once when there is a cache to put them in."""

    def __init__(
        self,
        members: Members,
        listing: Listing,
        resize: int | None,
        cache: DecodedCache | None,
        labels: list[int],
        class_names: list[str],
    ) -> None:
        self.members, self.listing, self.resize, self.cache = members, listing, resize, cache
        self.labels, self.class_names = torch.tensor(labels, dtype=torch.int64), tuple(class_names)
        self.image_shape = listing.image_shape
        self._decoded: ArraySource | None = None

    def prepare(self) -> None:
        if self.cache is None or self._decoded is not None:
            return
        if (found := self.cache.load()) is not None:  # another process was faster
            self._decoded = ArraySource(torch.from_numpy(found[1]))
        else:
            images = self._decode(np.arange(len(self)))
            self.cache.save(self.listing, images.numpy())
            self._decoded = ArraySource(images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        self.prepare()
        return self._decode(indices) if self._decoded is None else self._decoded.read(indices)

    def _decode(self, indices: NDArray[np.int64]) -> Tensor:
        images = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        with slow_progress(f"decoding {self.members.path.name}", len(images)) as done:
            for row, index in enumerate(indices):
                with _opened(self.members, self.listing.names[index]) as picture:
                    images[row] = fit_pixels(picture, self.image_shape[0], self.resize)
                done(row + 1)
        return torch.from_numpy(images)


@contextmanager
def _opened(members: Members, name: str) -> Iterator[Image.Image]:
    """An image, its header read; whatever its decoder stumbles over is told in one line."""
    data = members.read(name)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            yield picture
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{members.path}: {name!r} is not an image of a known format; remove or replace it") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{members.path}: image {name!r} cannot be decoded: {reason}; remove or replace it") from error


def _look(members: Members, resize: int | None, grayscale: bool, labelled: bool) -> Listing:
    """Reads every header: the shape they share, or the error that names two which differ."""
    names = [name for name in members.names if name != LABEL_FILE]
    if not names:
        raise UserError(
            f"{members.path} holds no image: none of its {members.passed_over} files ends in {' '.join(IMAGE_SUFFIXES)}"
        )
    first_size, all_grey = None, True
    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
        slow_progress(f"looking through {members.path.name}", len(names)) as done,
    ):
        for number, name in enumerate(names):
            with _opened(members, name) as picture:
                size, mode = picture.size, picture.mode
            where = f"{members.path}: image {name!r}"
            if size[0] * size[1] > PIXEL_LIMIT:
                raise UserError(f"{where} is {size[0]}x{size[1]}; at most {PIXEL_LIMIT:,} pixels are decoded")
            if mode not in GREY_MODES | COLOUR_MODES:
                raise UserError(f"{where} has pixels of mode {mode}; save it with 8 bits a channel")
            first_size = first_size or size
            if size != first_size and resize is None:
                raise UserError(
                    f"{members.path} holds images of several sizes: {names[0]!r} is {first_size[0]}x{first_size[1]}, "
                    f"{name!r} is {size[0]}x{size[1]}; --data.resize {min(first_size + size)} would crop their centre "
                    "squares and scale them"
                )
            all_grey = all_grey and mode in GREY_MODES
            done(number + 1)
    channels = 1 if all_grey or grayscale else 3
    shape = (channels, resize or first_size[1], resize or first_size[0])
    labels = _label_file(members, names) if labelled and LABEL_FILE in members.names else None
    return Listing(names, shape, labels)


def _label_file(members: Members, names: list[str]) -> list[int]:
    """Labels of EDM's ``dataset.json``: ``{"labels": [[name, integer], ...]}``; empty when it says null."""
    where = f"{members.path}: {LABEL_FILE}"
    try:
        pairs = json.loads(members.read(LABEL_FILE))["labels"]
        if pairs is None:
            return []
        by_name = {name.replace("\\", "/"): label for name, label in pairs}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{where} is not of the form {{"labels": [[name, integer], ...]}}') from error
    for name in names:
        if name not in by_name:
            raise UserError(f"{where} gives no label for image {name!r}; add it, or give --data.labelled false")
        if type(by_name[name]) is not int or not 0 <= by_name[name] < CLASS_LIMIT:
            raise UserError(f"{where} gives {name!r} the label {by_name[name]!r}; labels are 0, 1, 2, ...")
    return [by_name[name] for name in names]


def _classes(members: Members, listing: Listing, labelled: bool) -> tuple[list[int], list[str]]:
    """The class of every image, and the names of the classes."""
    names = listing.names
    unlabelled: tuple[list[int], list[str]] = ([0] * len(names), [])
    if not labelled or listing.labels == []:
        return unlabelled
    if listing.labels is not None:
        return listing.labels, [str(label) for label in range(max(listing.labels) + 1)]
    folders = [name.split("/")[-2] if "/" in name else "" for name in names]
    if not any(folders):
        return unlabelled
    if "" in folders:
        raise UserError(
            f"{members.path}: image {names[folders.index('')]!r} lies outside of the class folders; move it into one, "
            "or give --data.labelled false"
        )
    classes = sorted(set(folders))
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[folder] for folder in folders], classes
