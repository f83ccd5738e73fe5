"""Which descriptors tell copies from other images: edited copies of unseen images, searched among distractors."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from repro.data.base import ImageData
from repro.descriptors.base import Descriptor
from repro.descriptors.evaluation import EDITS, FALSE_POSITIVE_RATE, Detection, detect_copies
from repro.descriptors.small import SmallSSCD
from repro.descriptors.sscd import SSCD
from repro.errors import UserError
from repro.files import write_text
from repro.metrics.functional.intervals import wilson_interval
from repro.plots import rate_chart, save_figure
from repro.registry import build
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job
from repro.studies.system_table import write_rows

__all__ = ["DIGITS_HELD_OUT", "Descriptors"]

DIGITS_HELD_OUT = 397
"""Digits that the shipped descriptor was not trained on."""


class _Size(NamedTuple):
    queries: int
    references: int
    timm: str


_SIZES = {
    "tiny": _Size(100, 1_000, "test_resnet"),
    "small": _Size(500, 5_000, "resnet18"),
    "paper": _Size(2_000, 10_000, "resnet18"),
}


class Descriptors(Study):
    """Pixels, the small SSCD that fits the images, a network of timm, and SSCD when its weights are present.

    Queries are copies under blur, crop, colour, noise, JPEG and a small turn. Reported are micro-average precision,
    recall at the descriptor's threshold beside the share of unrelated pairs above it, and recall at the threshold that
    1 of 1,000 unrelated pairs exceeds. Digits are those that the small descriptor was not trained on; with the scale
    ``small`` and above, or where images are given, so are colour images.

    Args:
        data: More images to measure on; none of them should be known to the descriptors.
        descriptor: One more descriptor.
    """

    name: ClassVar[str] = "descriptors"
    figure: ClassVar[str] = "none; it chooses what the scores are measured with"

    def __init__(self, data: ImageData | None = None, descriptor: Descriptor | None = None) -> None:
        self.data, self.descriptor = data, descriptor

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """None: nothing is trained or drawn, and the report takes minutes."""
        return []

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """For each set of images a table (CSV, text) and a figure."""
        size, parts, notes = _SIZES[scale], [], []
        sets = list(self._sets(scale))
        systems = [list(self._descriptors(images, scale, size.timm, notes)) for _, images in sets]
        folder.mkdir(parents=True, exist_ok=True)
        for (name, images), descriptors in zip(sets, systems, strict=True):
            images = images[: size.references]
            queries = min(size.queries, len(images))
            found = [detect_copies(descriptor, images, queries) for descriptor in descriptors]
            _write(folder, name, found)
            parts.append(_text(name, found))
        return "\n\n".join([*parts, *dict.fromkeys(notes), f"tables and figures: {folder}"])

    def _sets(self, scale: Scale) -> Iterator[tuple[str, Tensor]]:
        """Names and images; those given come under the name of their class, first, since they may be missing."""
        digits = build("data", "Digits", holdout=DIGITS_HELD_OUT)
        if self.data is not None:
            name = type(self.data).__name__
            images = self.data.held_out()[0] if self.data.holdout else self.data.images()
            yield f"given {name}" if name == "Digits" else name, images
        elif scale != "tiny":
            yield "CIFAR10", build("data", "CIFAR10", split="test").images()
        yield "Digits", digits.held_out()[0]

    def _descriptors(self, images: Tensor, scale: Scale, model: str, notes: list[str]) -> Iterator[Descriptor]:
        yield build("descriptors", "Pixels")
        yield SmallSSCD.fitting(tuple(images.shape[1:]))
        network = build("descriptors", "Timm", model=model)
        try:
            network.fingerprint  # noqa: B018
        except UserError as error:
            notes.append(f"timm:{model} is untrained here: {error}")
            network = build("descriptors", "Timm", model=model, pretrained=False)
        yield network
        if scale != "tiny" and SSCD.available():
            yield build("descriptors", "SSCD")
        if self.descriptor is not None:
            self.descriptor.fingerprint  # noqa: B018
            yield self.descriptor


def _write(folder: Path, name: str, found: list[Detection]) -> None:
    rows = [row for each in found for row in each.rows()]
    stem = name.lower().replace(" ", "_")
    write_rows(folder / f"{stem}.csv", rows)
    write_text(folder / f"{stem}.json", json.dumps(rows, indent=1))
    save_figure(_figure(name, found), folder / f"{stem}.png")


def _figure(name: str, found: list[Detection]) -> Any:
    names, rates, intervals = [], [], []
    for place, edit in enumerate(EDITS):
        for each in found:
            names.append(f"{edit}: {each.descriptor}")
            rates.append(each.found_strictly[place] / each.queries)
            intervals.append(wilson_interval(each.found_strictly[place], each.queries))
    first = found[0]
    return rate_chart(
        rates,
        intervals,
        names,
        f"Copies found where {FALSE_POSITIVE_RATE:.1%} of unrelated pairs pass",
        f"{name}: {first.queries:,} queries an edit, {first.references:,} references",
        "recall with its 95 % interval",
    )


def _text(name: str, found: list[Detection]) -> str:
    from rich.console import Console
    from rich.table import Table

    first = found[0]
    table = Table(
        title=f"{name}: {first.queries:,} copies an edit, searched in {first.references:,} images", title_justify="left"
    )
    columns = ("descriptor", "", *EDITS, "all", "threshold", "false positives")
    for column in columns:
        table.add_column(column, justify="left" if column in ("descriptor", "") else "right")
    for each in found:
        rows = each.rows()
        table.add_row(each.descriptor, "micro-AP", *(f"{row['micro_ap']:.3f}" for row in rows), "", "")
        rate = f"{each.false_positive_rate:.1e} of {each.pairs:,}"
        table.add_row("", "recall", *(f"{row['recall']:.3f}" for row in rows), f"{each.threshold:.2f}", rate)
        strict = (f"{row['strict_recall']:.3f}" for row in rows)
        table.add_row("", f"recall at {FALSE_POSITIVE_RATE:g}", *strict, f"{each.strict_threshold:.2f}", "")
    console = Console(width=10_000, record=True, file=io.StringIO(), color_system=None, highlight=False)
    console.width = max(console.measure(table).maximum, 80)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())
