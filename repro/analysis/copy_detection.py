"""How well a descriptor finds edited copies among distractors, and how often it takes unrelated images for copies.

The edits are made image by image with Pillow, apart from everything that descriptors are trained with.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from repro.data.pixels import to_picture
from repro.descriptors.base import Descriptor
from repro.errors import UserError, unknown
from repro.metrics.functional.intervals import wilson_interval

__all__ = [
    "EDITS",
    "FALSE_POSITIVE_RATE",
    "Described",
    "Detection",
    "describe_copies",
    "detect_copies",
    "detection",
    "edited_copies",
    "micro_average_precision",
]

FALSE_POSITIVE_RATE = 1e-3
"""Of unrelated pairs, at which descriptors with different scales of similarity are compared."""
_CHUNK = 1024


def _blur(image: Image.Image, draw: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(0.5, image.width / 32)))


def _crop(image: Image.Image, draw: random.Random) -> Image.Image:
    width, height = (0.8 * size for size in image.size)
    left, top = draw.uniform(0, image.width - width), draw.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def _colour(image: Image.Image, draw: random.Random) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(draw.choice((0.7, 1.3)))
    return image


def _noise(image: Image.Image, draw: random.Random) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, 20, pixels.shape)
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, draw: random.Random) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def _rotation(image: Image.Image, draw: random.Random) -> Image.Image:
    return image.rotate(draw.choice((-1, 1)) * draw.uniform(5, 10), Image.Resampling.BICUBIC)


EDITS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "blur": _blur,
    "crop": _crop,
    "colour": _colour,
    "noise": _noise,
    "jpeg": _jpeg,
    "rotation": _rotation,
}
"""Gaussian blur of 1/32 of the side (at least half a pixel); a window of 0.8 of the side; brightness, contrast and
saturation each 0.7 or 1.3 fold; noise of standard deviation 20 of 255; JPEG of quality 40; a turn by 5 to 10 degrees
with black corners."""


def edited_copies(images: Tensor, edit: str, seed: int = 0) -> Tensor:
    """Makes an edited copy of each image: uint8, shape of the images.

    Args:
        images: uint8, shape (n, C, H, W) with C of 1 or 3.
        edit: Name in :data:`EDITS`.
        seed: Number of the draws; image i has its own.

    Raises:
        UserError: an unknown edit.
    """
    if edit not in EDITS:
        raise unknown("edit", edit, EDITS)
    copies = np.empty(images.shape, dtype=np.uint8)
    for row, image in enumerate(images.numpy()):
        copy = np.asarray(EDITS[edit](to_picture(image), random.Random(f"{seed} {edit} {row}")))
        copies[row] = copy.reshape(*image.shape[1:], image.shape[0]).transpose(2, 0, 1)
    return torch.from_numpy(copies)


@dataclass(frozen=True)
class Detection:
    """What a descriptor finds, at its threshold and at a fixed rate of false positives.

    Attributes:
        descriptor: Its name.
        threshold: Similarity above which it takes two images for copies.
        edits: Names of the edits.
        precision: Micro-average precision for each edit, and of all queries together, last.
        hits: How many copies of each edit exceed the threshold.
        queries: How many there are of each.
        references: How many images they are searched in, one right and the others distractors.
        false_positives: How many pairs of different references exceed the threshold.
        pairs: How many pairs there are.
        strict_threshold: Similarity that only :data:`FALSE_POSITIVE_RATE` of these pairs exceed.
        strict_hits: How many copies of each edit exceed it.
    """

    descriptor: str
    threshold: float
    edits: list[str]
    precision: list[float]
    hits: list[int]
    queries: int
    references: int
    false_positives: int
    pairs: int
    strict_threshold: float
    strict_hits: list[int]

    @property
    def false_positive_rate(self) -> float:
        """Share of unrelated pairs above the threshold."""
        return self.false_positives / self.pairs

    def rows(self) -> list[dict[str, object]]:
        """Returns one row an edit, and one for all: precision, recall with its 95 % interval, false positives."""
        rows = []
        for row, edit in enumerate([*self.edits, "all"]):
            counts = [sum(each) if edit == "all" else each[row] for each in (self.hits, self.strict_hits)]
            total = self.queries * (len(self.edits) if edit == "all" else 1)
            low, high = wilson_interval(counts[0], total)
            rows.append(
                {
                    "descriptor": self.descriptor,
                    "edit": edit,
                    "queries": total,
                    "references": self.references,
                    "micro_ap": self.precision[row],
                    "threshold": self.threshold,
                    "recall": counts[0] / total,
                    "recall_low": low,
                    "recall_high": high,
                    "false_positives": self.false_positives,
                    "pairs": self.pairs,
                    "false_positive_rate": self.false_positive_rate,
                    "strict_threshold": self.strict_threshold,
                    "strict_recall": counts[1] / total,
                }
            )
        return rows


@dataclass(frozen=True)
class Described:
    """Vectors of images and of their edited copies.

    Attributes:
        name: Of the descriptor.
        threshold: Similarity above which it takes two images for copies.
        references: Of the images, float32 (n, d).
        copies: Of the copies of the first q images under each edit, float32 (q, d).
        edits: Names of the edits.
        seconds: Processor time of all, loading the network left out.
    """

    name: str
    threshold: float
    references: Tensor
    copies: list[Tensor]
    edits: list[str]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images described in a second of one core."""
        return (len(self.references) + sum(map(len, self.copies))) / self.seconds


def describe_copies(
    descriptor: Descriptor,
    images: Tensor,
    queries: int,
    edits: Sequence[str] = tuple(EDITS),
    threshold: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Described:
    """Describes images and edited copies of some of them; arguments and errors as of :func:`detect_copies`."""
    if not 1 <= queries <= len(images) or len(images) < 2:
        raise UserError(f"{queries} queries in {len(images)} images; give at least two images, and 1 to that many")
    copies = [edited_copies(images[:queries], edit, seed) for edit in edits]
    descriptor.features(images[:1], device=device)
    start = time.process_time()
    references = descriptor.features(images, device=device)
    vectors = [descriptor.features(each, device=device) for each in copies]
    seconds = max(time.process_time() - start, 1e-9)
    threshold = descriptor.default_threshold if threshold is None else threshold
    return Described(descriptor.name, threshold, references, vectors, list(edits), seconds)


def detect_copies(
    descriptor: Descriptor,
    images: Tensor,
    queries: int,
    edits: Sequence[str] = tuple(EDITS),
    threshold: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Detection:
    """Measures how well a descriptor finds the originals of edited copies among all images.

    Args:
        descriptor: The descriptor.
        images: uint8, shape (n, C, H, W): no two the same; the descriptor was not trained on them.
        queries: How many of them, the first, are copied under every edit; the others are distractors.
        edits: Names in :data:`EDITS`.
        threshold: Similarity above which two images are copies; by default the descriptor's.
        seed: Number of the edits' draws.
        device: Where the descriptor runs.

    Raises:
        UserError: more queries than images, fewer than two images.
    """
    return detection(describe_copies(descriptor, images, queries, edits, threshold, seed, device))


def detection(described: Described) -> Detection:
    """Measures how well described copies find their originals among the described images."""
    references, threshold = described.references, described.threshold
    false_positives, strict = _unrelated(references, threshold)
    precision, hits, strict_hits, similarities = [], [], [], []
    for copies in described.copies:
        similarity = copies @ references.T
        own = similarity.diagonal()
        precision.append(micro_average_precision(similarity))
        hits.append(int((own > threshold).sum()))
        strict_hits.append(int((own > strict).sum()))
        similarities.append(similarity)
    precision.append(micro_average_precision(*similarities))
    pairs = len(references) * (len(references) - 1) // 2
    return Detection(
        described.name,
        threshold,
        described.edits,
        precision,
        hits,
        len(described.copies[0]),
        len(references),
        false_positives,
        pairs,
        strict,
        strict_hits,
    )


def _unrelated(references: Tensor, threshold: float) -> tuple[int, float]:
    """How many pairs of different images exceed the threshold, and what a fixed share of all pairs exceeds."""
    count, most = len(references), int(FALSE_POSITIVE_RATE * len(references) * (len(references) - 1) / 2)
    exceeding, largest = 0, torch.empty(0)
    for start in range(0, count, _CHUNK):
        rows = references[start : start + _CHUNK] @ references.T
        later = torch.arange(count) > torch.arange(start, start + len(rows))[:, None]
        similarity = rows[later]
        exceeding += int((similarity > threshold).sum())
        largest = torch.cat([largest, similarity]).topk(min(most + 1, len(largest) + len(similarity))).values
    return exceeding, float(largest[-1])


def micro_average_precision(*similarities: Tensor) -> float:
    """Computes the area under precision and recall of one ranking of all pairs of query and reference.

    Args:
        similarities: Each (q, n); reference i is the right one for query i.

    Source: Douze et al. 2021, arXiv:2106.09672, section 4.1.

    Example:
        >>> micro_average_precision(torch.tensor([[0.9, 0.1], [0.8, 0.7]]))
        0.8333333333333333
    """
    from sklearn.metrics import average_precision_score

    right = [torch.eye(*each.shape, dtype=torch.bool).flatten() for each in similarities]
    scores = torch.cat([each.flatten() for each in similarities])
    return float(average_precision_score(torch.cat(right).numpy(), scores.numpy()))
