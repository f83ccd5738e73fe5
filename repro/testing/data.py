"""Laws that every data set obeys, for the built-in ones and for those of plug-in packages."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from repro.data.base import ImageData
from repro.data.order import permutation
from repro.records import rebuild, record_of

__all__ = ["check_data"]


def check_data(data: ImageData) -> None:
    """Checks a registered data set against the laws of its kind.

    They are: facts known early agree with the images; the same record gives the same bytes; subsets are nested and
    never touch held-out images; every position of the stream has its one image, at any start, for any number of
    ranks, from memory or not.

    Args:
        data: Built from the registry, at least 8 images, no image decoded yet.

    Raises:
        AssertionError: names the law that is broken.

    Example:
        >>> from repro.registry import build
        >>> check_data(build("data", "Digits", subset=50, batch_size=12))
    """
    _check_facts(data)
    _check_same_record_same_bytes(data)
    _check_subsets(data)
    _check_stream(data)


def _variant(data: ImageData, **changes: Any) -> ImageData:
    record = json.loads(json.dumps(record_of(data)))
    return rebuild(record | {"args": record["args"] | changes})


def _check_facts(data: ImageData) -> None:
    early = (len(data), data.image_shape, data.num_classes)
    images, labels = data.images(), data.labels()
    assert early == (len(data), data.image_shape, data.num_classes), "facts change when the images are loaded"
    assert early[:2] == (len(images), tuple(images.shape[1:])), f"announced {early[:2]}, gave {tuple(images.shape)}"
    assert 1 <= early[1][0] <= 16, f"{early[1][0]} channels; images have 1 to 16"
    assert images.dtype == data.dtype, f"images are {images.dtype}, not {data.dtype}"
    assert images.is_contiguous(), "images are not contiguous"
    assert labels.dtype == torch.int64, f"labels are {labels.dtype}, not int64"
    assert labels.shape == (len(data),), f"{tuple(labels.shape)} labels for {len(data)} images"
    assert len(data.class_names) == data.num_classes, "num_classes and class_names differ"
    assert 0 <= int(labels.min()) <= int(labels.max()) < max(data.num_classes, 1), "a label is outside the classes"


def _check_same_record_same_bytes(data: ImageData) -> None:
    again = _variant(data)
    assert torch.equal(again.images(), data.images()), "the same record gives other images"
    assert torch.equal(again.labels(), data.labels()), "the same record gives other labels"
    assert again.fingerprint() == data.fingerprint(), "the same record gives another fingerprint"
    lazy = _variant(data, in_memory=False)
    assert lazy.fingerprint() == data.fingerprint(), "the fingerprint depends on in_memory"


def _check_subsets(data: ImageData) -> None:
    everything = _variant(data, subset=None, holdout=0)
    total = len(everything)
    assert total >= 8, "the laws need at least 8 images"
    small, large = _variant(data, subset=total // 4, holdout=2), _variant(data, subset=total // 2, holdout=2)
    assert torch.equal(small.images(), large.images()[: total // 4]), "subsets are not nested"
    assert torch.equal(small.labels(), large.labels()[: total // 4]), "labels of nested subsets differ"
    assert torch.equal(large.images(), everything.images()[: total // 2]), "a subset is not the beginning of the set"
    assert small.fingerprint() != large.fingerprint(), "two subsets have one fingerprint"
    held, held_labels = small.held_out()
    assert torch.equal(held, everything.images()[-2:]), "held-out images are not the last of the set"
    assert torch.equal(held_labels, everything.labels()[-2:]), "held-out labels are not the last of the set"
    served = list(small.val_dataloader())
    assert torch.equal(torch.cat([images for images, _ in served]), held), "the validation loader gives other images"
    rest = len(_variant(data, subset=None, holdout=2))
    assert rest == total - 2, f"{rest} images to train on when 2 of {total} are held out"


def _check_stream(data: ImageData) -> None:
    images, labels, count, size = data.images(), data.labels(), len(data), data.batch_size
    plain, flipped = _variant(data, horizontal_flip=False), _variant(data, horizontal_flip=True)
    lazy = _variant(data, horizontal_flip=True, in_memory=False)
    for first in (0, 7 * size, 5 * count + 3):
        positions = range(first, first + size)
        items = [int(permutation(data.seed, p // count, count)[p % count]) for p in positions]
        got, got_labels = plain.stream().batches[first]
        assert torch.equal(got, images[items]), f"the batch at position {first} is not that of the permutations"
        assert torch.equal(got_labels, labels[items]), f"the labels at position {first} are of other images"
        mirrored, _ = flipped.stream().batches[first]
        as_is, turned = (mirrored == got).flatten(1).all(1), (mirrored == got.flip(-1)).flatten(1).all(1)
        assert bool((as_is | turned).all()), "a flip does more than mirror an image"
        assert torch.equal(lazy.stream().batches[first][0], mirrored), "batches depend on in_memory"
        if size % 2 == 0:
            halves = [flipped.stream(rank=rank, world_size=2).batches[first][0] for rank in (0, 1)]
            assert torch.equal(torch.stack(halves, 1).flatten(0, 1), mirrored), "two ranks see another batch than one"
    for epoch in (0, 1):
        visited = np.sort(permutation(data.seed, epoch, count))
        assert np.array_equal(visited, np.arange(count)), f"pass {epoch} does not visit every image once"
