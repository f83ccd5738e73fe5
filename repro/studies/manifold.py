"""Figure 7: what three architectures make of one plane of noises."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repro.analysis import NoisePlane, RegionMap, local_lipschitz, region_agreement, region_map
from repro.errors import UserError
from repro.images import to_uint8
from repro.metrics.functional.similarity import cosine, nearest
from repro.plots import plane_maps
from repro.registry import build
from repro.studies import Drawn, Measured, Plan, Report, Scale, Study, Trained, trio

__all__ = ["Manifold"]


class _Size(NamedTuple):
    """Points along an axis, seeds that corners are chosen from, seconds a plane on one core."""

    points: int
    seeds: str
    seconds: float


_SIZES = {"tiny": _Size(49, "0-99", 20), "small": _Size(51, "0-199", 1800), "paper": _Size(101, "0-499", 36_000)}
_EXTENT = (-0.1, 1.1)
_BATCH = 250


class Manifold(Study):
    r"""The plane :math:`\epsilon(a, b) = \epsilon_1 + a (\epsilon_2 - \epsilon_1) + b (\epsilon_3 - \epsilon_1)`.

    The corners are three noises whose images all systems agree on and that show three different classes (of the
    nearest training image). Each point is coloured by the corner whose image it gives, by the same system; beside the
    maps stands the slope of the map from noise to image between neighbours on the grid, a lower bound of its local
    Lipschitz constant. The grid reaches from -0.1 to 1.1, which the paper does not say.
    """

    name: ClassVar[str] = "manifold"
    figure: ClassVar[str] = "7"

    def plan(self, plan: Plan) -> tuple[Measured, dict[str, Measured]]:
        """Trains three systems, draws from them, chooses the corners, and draws the plane of each."""
        size, runs = _SIZES[plan.scale.name], trio(plan)
        banks = [plan.draw(name, run, size.seeds) for name, run in runs.items()]
        corners = plan.measure("corners", _corners, banks, plan.scale, seconds=5)
        planes = {
            name: plan.measure(name, _plane, run, corners, plan.scale, seconds=size.seconds)
            for name, run in runs.items()
        }
        return corners, planes

    def report(self, report: Report, parts: tuple[Measured, dict[str, Measured]]) -> None:
        """Writes ``manifold.csv`` and ``agreement.csv``, and the figure."""
        corners, planes = parts[0].read(), {name: plane.read() for name, plane in parts[1].items()}
        names, maps = [*planes], {name: _map(plane) for name, plane in planes.items()}
        rows = [_row(name, maps[name], np.array(plane["slopes"])) for name, plane in planes.items()]
        pairs = [_pair(a, b, maps[a], maps[b]) for a, b in itertools.combinations(names, 2)]
        first, seeds = planes[names[0]], ", ".join(map(str, corners["seeds"]))
        judged = {"descriptor": first["descriptor"], "threshold": first["threshold"]}
        report.table("manifold", [judged | row for row in rows])
        report.table("agreement", [judged | row for row in pairs])
        same = f"{first['descriptor']} > {first['threshold']:g}"
        figure = plane_maps(
            [maps[name].regions.numpy() for name in names],
            [maps[name].similarity.amax(2).numpy() for name in names],
            [np.array(plane["slopes"]) for plane in planes.values()],
            [np.array(plane["corners"], dtype=np.uint8) for plane in planes.values()],
            _EXTENT,
            names,
            "One plane of noises",
            f"corners: seeds {seeds}; coloured where {same} to the system's own corner; "
            f"{len(first['regions'])} x {len(first['regions'])} points",
        )
        values = {f"agreement/{row['first']}_{row['second']}": row["agreement"] for row in pairs}
        values |= {f"slope_median/{row['system']}": row["slope_median"] for row in rows}
        report.figure([figure], values=values)
        report.text(
            f"corners: seeds {seeds}, classes {', '.join(map(str, corners['classes']))}; same image: {same}",
            *(_row_text(row) for row in rows),
            *(
                f"{row['first']} - {row['second']}: the maps agree on {row['agreement']:.3f} of the plane's "
                f"{rows[0]['points']:,} points ({row['by_chance']:.3f} by chance)"
                for row in pairs
            ),
        )


def _corners(banks: Sequence[Drawn], scale: Scale) -> Mapping[str, Any]:
    """The first three seeds that the systems agree on most, of three classes."""
    data, opened = build("data", scale.data), [each.open() for each in banks]
    descriptor = scale.judge.descriptor(opened[0].manifest.image_shape)
    features = [descriptor.features(bank.images) for bank in opened]
    agreement = torch.stack([cosine(a, b) for a, b in itertools.combinations(features, 2)]).amin(0)
    _, places = nearest(features[0], descriptor.features(data.images()))
    classes = data.labels()[places].tolist()
    chosen: dict[int, int] = {}
    for row in agreement.argsort(descending=True, stable=True).tolist():
        chosen.setdefault(classes[row], row)
        if len(chosen) == 3:
            break
    else:
        raise UserError(f"the images of seeds {_SIZES[scale.name].seeds} show fewer than three classes; draw more")
    rows = list(chosen.values())
    return {"seeds": opened[0].seeds[rows].tolist(), "classes": list(chosen), "agreement": agreement[rows].tolist()}


def _plane(run: Trained, corners: Measured, scale: Scale) -> Mapping[str, Any]:
    """The plane of one system: nearest corner, similarity and slope at every point."""
    model = run.load().to("cuda" if torch.cuda.is_available() else "cpu")
    descriptor = scale.judge.descriptor(tuple(model.image_shape))
    threshold = descriptor.default_threshold if scale.judge.threshold is None else scale.judge.threshold
    axis = torch.linspace(*_EXTENT, _SIZES[scale.name].points)
    plane = NoisePlane(corners.read()["seeds"], axis, axis)
    total = len(plane)
    images = torch.cat([model.generate(plane.part(i, _BATCH)).cpu() for i in range(0, total, _BATCH)])
    anchors = model.sample(plane.seeds)
    regions = region_map(descriptor.features(to_uint8(images)), descriptor.features(anchors), plane.grid, threshold)
    slopes = local_lipschitz(images, plane.draw(model.image_shape), plane.grid)
    return {
        "threshold": regions.threshold,
        "descriptor": descriptor.name,
        "regions": regions.regions.tolist(),
        "similarity": regions.similarity.double().numpy().round(5).tolist(),
        "slopes": slopes.numpy().round(6).tolist(),
        "corners": anchors.tolist(),
    }


def _map(measured: Mapping[str, Any]) -> RegionMap:
    return RegionMap(_tensor(measured["regions"]), _tensor(measured["similarity"]), measured["threshold"])


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values))


def _row(name: str, region: RegionMap, slopes: np.ndarray) -> dict[str, Any]:
    shares = dict(zip(("corner_1", "corner_2", "corner_3", "none"), region.shares, strict=True))
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
