"""Figure 7: what three architectures make of one plane of noises."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.analysis import NoisePlane, RegionMap, local_lipschitz, region_agreement, region_map
from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.descriptors.base import Descriptor
from repro.descriptors.default import default_descriptor
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.images import to_uint8
from repro.metrics.functional.similarity import cosine, nearest
from repro.plots import plane_maps, rendered, save_figure
from repro.registry import build
from repro.studies.base import Scale
from repro.studies.jobs import Job
from repro.studies.measuring import MeasuringStudy, log_figure
from repro.studies.system_table import write_rows
from repro.studies.systems import bank_of, draw_job, run_of
from repro.studies.trio import DATA, trio, trio_jobs

__all__ = ["Manifold"]


class _Size(NamedTuple):
    """Points along an axis, seeds that corners are chosen from, seconds a plane on one core."""

    points: int
    seeds: str
    seconds: float


_SIZES = {"tiny": _Size(49, "0-99", 20), "small": _Size(51, "0-199", 1800), "paper": _Size(101, "0-499", 36_000)}
_EXTENT = (-0.1, 1.1)
_BATCH = 250


class Manifold(MeasuringStudy):
    r"""The plane :math:`\epsilon(a, b) = \epsilon_1 + a (\epsilon_2 - \epsilon_1) + b (\epsilon_3 - \epsilon_1)`.

    The corners are three noises whose images all systems agree on and that show three different classes (of the
    nearest training image). Each point is coloured by the corner whose image it gives, by the same system; beside the
    maps stands the slope of the map from noise to image between neighbours on the grid, a lower bound of its local
    Lipschitz constant. The grid reaches from -0.1 to 1.1, which the paper does not say.
    """

    name: ClassVar[str] = "manifold"
    figure: ClassVar[str] = "7"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """Trains three systems, draws from them, chooses the corners, and draws the plane of each."""
        names, size = trio(scale), _SIZES[scale]
        jobs = trio_jobs(folder, scale)
        jobs += [draw_job(folder, name, size.seeds) for name in names]
        jobs.append(self.measure_job(folder, scale, "corners", [f"draw_{name}" for name in names], 5))
        jobs += [self.measure_job(folder, scale, name, ["measure_corners"], size.seconds) for name in names]
        return jobs

    def measure(self, folder: Path, scale: Scale, part: str) -> Mapping[str, Any]:
        """The three corners, or the plane of one system."""
        return self._corners(folder, scale) if part == "corners" else self._plane(folder, scale, part)

    def _descriptor(self, scale: Scale) -> tuple[Descriptor, float]:
        """What tells images apart, and the similarity above which they are the same."""
        if scale == "tiny":
            return Pixels(), 0.95
        descriptor = default_descriptor((3, 32, 32))
        return descriptor, descriptor.default_threshold

    def _corners(self, folder: Path, scale: Scale) -> Mapping[str, Any]:
        """The first three seeds that the systems agree on most, of three classes."""
        data, (descriptor, _) = build("data", DATA[scale]), self._descriptor(scale)
        banks = [Bank.open(bank_of(folder, name)) for name in trio(scale)]
        features = [descriptor.features(bank.images) for bank in banks]
        agreement = torch.stack([cosine(a, b) for a, b in itertools.combinations(features, 2)]).amin(0)
        _, places = nearest(features[0], descriptor.features(data.images()))
        classes, chosen = data.labels()[places].tolist(), {}
        for row in agreement.argsort(descending=True, stable=True).tolist():
            chosen.setdefault(classes[row], row)
            if len(chosen) == 3:
                break
        else:
            raise UserError(f"the images of seeds {_SIZES[scale].seeds} show fewer than three classes; draw more")
        rows = list(chosen.values())
        return {"seeds": banks[0].seeds[rows].tolist(), "classes": list(chosen), "agreement": agreement[rows].tolist()}

    def _plane(self, folder: Path, scale: Scale, name: str) -> Mapping[str, Any]:
        model, (descriptor, threshold) = load_model(run_of(folder, name)), self._descriptor(scale)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        axis = torch.linspace(*_EXTENT, _SIZES[scale].points)
        plane = NoisePlane(self.measured(folder, "corners")["seeds"], axis, axis)
        total = len(plane)
        images = torch.cat([model.generate(plane.part(i, _BATCH)).cpu() for i in range(0, total, _BATCH)])
        corners = model.sample(plane.seeds)
        features, anchors = descriptor.features(to_uint8(images)), descriptor.features(corners)
        found = region_map(features, anchors, plane.grid, threshold)
        slopes = local_lipschitz(images, plane.draw(model.image_shape), plane.grid)
        return {
            "threshold": found.threshold,
            "descriptor": descriptor.name,
            "regions": found.regions.tolist(),
            "similarity": found.similarity.double().numpy().round(5).tolist(),
            "slopes": slopes.numpy().round(6).tolist(),
            "corners": corners.tolist(),
        }

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``manifold.csv`` and ``agreement.csv``, and the figure."""
        names, chosen = trio(scale), self.measured(folder, "corners")
        found = {name: self.measured(folder, name) for name in names}
        maps = {name: _map(found[name]) for name in names}
        rows = [_row(name, maps[name], np.array(found[name]["slopes"])) for name in names]
        pairs = [_pair(a, b, maps[a], maps[b]) for a, b in itertools.combinations(names, 2)]
        write_rows(folder / "manifold.csv", rows)
        write_rows(folder / "agreement.csv", pairs)
        first, seeds = found[names[0]], ", ".join(map(str, chosen["seeds"]))
        same = f"{first['descriptor']} > {first['threshold']:g}"
        figure = plane_maps(
            [maps[name].regions.numpy() for name in names],
            [maps[name].similarity.amax(2).numpy() for name in names],
            [np.array(found[name]["slopes"]) for name in names],
            [np.array(found[name]["corners"], dtype=np.uint8) for name in names],
            _EXTENT,
            names,
            "One plane of noises",
            f"corners: seeds {seeds}; coloured where {same} to the system's own corner; "
            f"{len(first['regions'])} x {len(first['regions'])} points",
        )
        save_figure(figure, folder / "manifold.png")
        values = {f"agreement/{row['first']}_{row['second']}": row["agreement"] for row in pairs}
        values |= {f"slope_median/{row['system']}": row["slope_median"] for row in rows}
        log_figure(folder / "results", self.name, rendered(figure), values)
        lines = [f"corners: seeds {seeds}, classes {', '.join(map(str, chosen['classes']))}; same image: {same}"]
        lines += [_row_text(row) for row in rows]
        lines += [
            f"{row['first']} - {row['second']}: the maps agree on {row['agreement']:.3f} of the plane's "
            f"{rows[0]['points']:,} points ({row['by_chance']:.3f} by chance)"
            for row in pairs
        ]
        return "\n".join([*lines, "", f"picture: {folder / 'manifold.png'}", f"tables: {folder}/*.csv"])


def _map(found: Mapping[str, Any]) -> RegionMap:
    return RegionMap(_tensor(found["regions"]), _tensor(found["similarity"]), found["threshold"])


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values))


def _row(name: str, found: RegionMap, slopes: np.ndarray) -> dict[str, Any]:
    shares = dict(zip(("corner_1", "corner_2", "corner_3", "none"), found.shares, strict=True))
    steep = {"slope_median": np.median(slopes), "slope_95": np.quantile(slopes, 0.95), "slope_highest": slopes.max()}
    return {"system": name, **shares, **{key: float(value) for key, value in steep.items()}, "points": slopes.size}


def _pair(first: str, second: str, one: RegionMap, other: RegionMap) -> dict[str, Any]:
    chance = sum(a * b for a, b in zip(one.shares, other.shares, strict=True))
    return {"first": first, "second": second, "agreement": region_agreement(one, other), "by_chance": chance}


def _row_text(row: Mapping[str, Any]) -> str:
    return (
        f"{row['system']}: corners hold {row['corner_1']:.2f}, {row['corner_2']:.2f}, {row['corner_3']:.2f} of the "
        f"plane, none {row['none']:.2f}; slope median {row['slope_median']:.3g}, 95 % below {row['slope_95']:.3g}, "
        f"highest {row['slope_highest']:.3g}"
    )
