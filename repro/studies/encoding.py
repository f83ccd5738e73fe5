"""Beyond the paper: from the image back to its noise, and whether systems find the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.analysis import likeness_of_noises, summary_of_noises
from repro.drawing import encode
from repro.images import to_uint8
from repro.plots import image_grid, rate_chart
from repro.samplers import Heun
from repro.studies import SCALES, Measured, Plan, Report, Scale, Study, Trained, rate_text, three_systems

__all__ = ["Encoding"]


class _Size(NamedTuple):
    """Images held out, images encoded of each kind."""

    held_out: int
    images: int


_SIZES = {
    "tiny": _Size(397, 300),
    "cpu": _Size(1000, 200),
    "small": _Size(1000, 500),
    "paper": _Size(1000, 1000),
}
_STEPS = 50
_SHOWN = 6
_KINDS = ("training", "held out")


class Encoding(Study):
    """Three systems walk training images and held-out images back to noises, with Heun's method in 50 steps.

    Of each system: how well the noises give the images again, how Gaussian they are, and how likely the images are in
    bits per dimension, where training images that are likelier than held-out ones tell of memorisation. Of two systems:
    the share of images for which both find the same noise (cosine above 0.5), beside that of other images.
    """

    name: ClassVar[str] = "encoding"
    figure: ClassVar[str] = "none: the noise behind an image"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> Measured:
        """Trains the systems without the held-out images, and encodes with each."""
        runs = three_systems(plan, {"data.holdout": _SIZES[plan.scale.name].held_out})
        return plan.measure("noises", _noises, runs, plan.scale)

    def report(self, report: Report, parts: Measured) -> None:
        """``systems.csv`` and ``encoding.csv`` with the pairs, and the figure."""
        read = parts.read()
        systems, pairs = read["systems"], read["pairs"]
        data = {"data": report.scale.learned}
        report.table("systems", [data | row for row in systems])
        report.table("encoding", [data | row for row in pairs])
        n, threshold = pairs[0]["n"], pairs[0]["threshold"]
        highest = max(row["chance"] for row in pairs)
        chart = rate_chart(
            [*(row["rate"] for row in pairs), highest],
            [*((row["low"], row["high"]) for row in pairs), (highest, highest)],
            [*(f"{row['first']} - {row['second']}, {row['images']}" for row in pairs), "the largest for other images"],
            "Same image, same noise",
            f"cosine of the noises > {threshold:g}, n = {n:,} images, 95 % intervals",
            "share of images",
        )
        values = {f"{row['first']}_{row['second']}/{row['images'].replace(' ', '_')}": row["rate"] for row in pairs}
        report.figure([chart, _grid(read["pictures"], read["names"])], values=values)
        report.text(*_lines(systems, pairs))


def _noises(runs: Mapping[str, Trained], scale: Scale) -> dict[str, Any]:
    """Encodes images of both kinds with every system; rows of both tables, and a few pictures."""
    size, sampler = _SIZES[scale.name], Heun(_STEPS)
    data = scale.build_data(holdout=size.held_out)
    kinds = dict(zip(_KINDS, (data.images()[: size.images], data.held_out()[0][: size.images]), strict=True))
    models = {name: run.load() for name, run in runs.items()}
    systems, pairs, pictures = [], [], {}
    for kind, images in kinds.items():
        noises = {name: encode(model, images, sampler=sampler) for name, model in models.items()}
        for name, model in models.items():
            summary = summary_of_noises(model, images, noises[name], sampler=sampler, bits=True)
            systems.append({"images": kind, "system": name, **summary})
        for one, other in combinations(models, 2):
            likeness = likeness_of_noises(noises[one], noises[other])
            pairs.append({"images": kind, "first": one, "second": other, **likeness})
        first = next(iter(models))
        pictures[kind] = [
            images[:_SHOWN].tolist(),
            *(to_uint8(sampler.sample(model.denoiser, noises[first][:_SHOWN])).tolist() for model in models.values()),
        ]
    return {"systems": systems, "pairs": pairs, "pictures": pictures, "names": list(models)}


def _grid(pictures: Mapping[str, Sequence[Any]], systems: Sequence[str]) -> Figure:
    """Images of both kinds, and what each system draws from the noises that the first one finds behind them."""
    columns = [torch.tensor(column, dtype=torch.uint8) for column in zip(*pictures.values(), strict=True)]
    images = torch.stack([column.flatten(0, 1) for column in columns], dim=1)
    rows = [f"{kind} {number}" for kind in pictures for number in range(_SHOWN)]
    return image_grid(images, ["image", *systems], rows, "Drawn again", "from the noises that the first system finds")


def _lines(systems: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in systems:
        again = f"{row['reconstruction_rms_median']:.2g} (median RMS, at most {row['reconstruction_rms_max']:.2g})"
        gaussian = (
            f"mean {row['mean']:.3f}, variance {row['variance']:.3f}, {row['normal_dimensions']:.0%} of them normal"
        )
        yield (
            f"{row['system']}, {row['images']}, n = {row['n']:,}: drawn again within {again}; values of the noises: "
            f"{gaussian}; {row['bits_per_dimension']:.3f} +- {row['bits_standard_error']:.3f} bits per dimension"
        )
    for row in pairs:
        yield (
            f"{row['first']} - {row['second']}, {row['images']}: same noise {rate_text(row)}, other images "
            f"{row['chance']:.3f}, median cosine {row['cosine_median']:.3f}, n = {row['n']:,}"
        )
