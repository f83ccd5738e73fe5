"""Which images a report shows, and the sheets of tiles that hold them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from repro.comparison.results import PairCounts, Results
from repro.images import viewable

__all__ = ["Sheets", "fitting_sheets"]

_LARGEST = 96
_BLOCK = 8
_LEVELS = ((12, None), (8, None), (6, None), (12, 90), (8, 90), (6, 90), (4, 85), (2, 80), (1, 70))


@dataclass
class Sheets:
    """The tiles of a report.

    Attributes:
        size: (height, width) of a tile.
        about: What was left out or compressed, as a sentence.
        pairs: By score and pair: the outcomes shown, from both ends.
        nearest: By system with training images: the samples shown, from both ends.
        train_of: By such a system: the sheet of its training images.
        images: By sheet: those that it takes tiles from.
        rows: By sheet: which of them, in order.
        uris: By sheet: the file as a data URI.
    """

    size: tuple[int, int]
    about: str = ""
    pairs: dict[tuple[str, tuple[int, int]], tuple[list[int], list[int]]] = field(default_factory=dict)
    nearest: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    train_of: dict[int, str] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, dict[str, Any]]:
        """For each sheet its data URI, tiles a line, distance of tiles and the rows that they show, in order."""
        cell = [-(-side // _BLOCK) * _BLOCK for side in self.size]
        return {
            name: {"uri": uri, "columns": _columns(len(self.rows[name])), "cell": cell, "rows": self.rows[name]}
            for name, uri in self.uris.items()
        }


def fitting_sheets(results: Results, most_bytes: float) -> Sheets:
    """As many images as fit, at most 12 from each end of each pair.

    Args:
        results: What is reported.
        most_bytes: Room for all sheets together; the smallest choice is taken when none fits.
    """
    for count, quality in _LEVELS:
        sheets = _chosen(results, count)
        last = (count, quality) == _LEVELS[-1]
        if _encode(sheets, quality, math.inf if last else most_bytes):
            break
    shape = results.banks[0].manifest.image_shape
    sheets.about = f"At most {count} pairs are shown from each end of each cell"
    sheets.about += "" if quality is None else f", compressed (JPEG {quality})"
    sheets.about += "" if sheets.size == tuple(shape[1:]) else f", reduced from {shape[1]} x {shape[2]} pixels"
    sheets.about += "."
    return sheets


def _encode(sheets: Sheets, quality: int | None, most_bytes: float) -> bool:
    """Makes the files, or gives up when those made so far say that all will not fit."""
    total, done, size = sum(len(rows) for rows in sheets.rows.values()), 0, 0
    for name, rows in sorted(sheets.rows.items(), key=lambda item: -len(item[1])):
        sheets.uris[name] = _encoded(sheets.images[name], rows, sheets.size, quality)
        size, done = size + len(sheets.uris[name]), done + len(rows)
        if size > most_bytes or size * total / done > 1.05 * most_bytes:
            return False
    return True


def _chosen(results: Results, count: int) -> Sheets:
    height, width = results.banks[0].manifest.image_shape[1:]
    scale = min(1.0, _LARGEST / max(height, width))
    sheets = Sheets((max(1, round(height * scale)), max(1, round(width * scale))))
    rows: dict[str, set[int]] = {}

    def show(name: str, images: Tensor, places: Sequence[int]) -> None:
        sheets.images[name] = images
        rows.setdefault(name, set()).update(int(row) for row in places)

    for score in results.scores.values():
        for pair in score.pairs():
            ends = _ends(_order(score, pair), count)
            sheets.pairs[score.name, pair] = ends
            for row in (row for part in ends for row in part):
                for index, of_bank in zip(pair, score.outcomes[pair].rows(row), strict=True):
                    show(f"s{index}", results.banks[index].images, [of_bank])
    training: dict[int, str] = {}
    for index, (copies, images) in enumerate(zip(results.memorization, results.train, strict=True)):
        if copies is not None and images is not None:
            ends = _ends(np.argsort(-copies.similarity, kind="stable"), count)
            sheets.nearest[index] = ends
            sheets.train_of[index] = training.setdefault(id(images), f"t{index}")
            shown = [row for part in ends for row in part]
            show(f"s{index}", results.banks[index].images, shown)
            show(sheets.train_of[index], images, copies.index[shown].tolist())
    sheets.rows = {name: sorted(places) for name, places in rows.items()}
    return sheets


def _order(score: PairCounts, pair: tuple[int, int]) -> np.ndarray:
    """Outcomes from the most alike to the least."""
    outcomes = score.outcomes[pair]
    worth = outcomes.matches if outcomes.values is None else outcomes.values
    return np.argsort(worth if score.sense == "<" else -worth.astype(np.float64), kind="stable")


def _ends(order: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    first = min(count, -(-len(order) // 2))
    last = min(count, len(order) - first)
    return order[:first].tolist(), order[::-1][:last].tolist()


def _columns(count: int) -> int:
    return max(1, round(count**0.5))


def _encoded(images: Tensor, rows: Sequence[int], size: tuple[int, int], quality: int | None) -> str:
    """A data URI of tiles in lines; each starts on a block of the compression, so that none bleeds into another."""
    tiles = viewable(images[list(rows)]).numpy().transpose(0, 2, 3, 1)
    colours = tiles.shape[3]
    if tiles.shape[1:3] != size:
        pictures = (Image.fromarray(tile.squeeze(-1) if colours == 1 else tile) for tile in tiles)
        small = [np.asarray(picture.resize(size[::-1], Image.Resampling.BOX)) for picture in pictures]
        tiles = np.stack(small).reshape(len(small), *size, colours)
    height, width = (-(-side // _BLOCK) * _BLOCK for side in size)
    columns = _columns(len(tiles))
    lines = -(-len(tiles) // columns)
    full = np.pad(tiles, ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0)), mode="edge")
    full = np.concatenate([full, np.zeros((lines * columns - len(full), *full.shape[1:]), np.uint8)])
    sheet = full.reshape(lines, columns, height, width, colours).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(lines * height, columns * width, colours)
    picture = Image.fromarray(sheet.squeeze(-1) if colours == 1 else sheet)
    file = io.BytesIO()
    if quality is None:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=quality, subsampling=0)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
