"""Figure 15: a network trained on what another one drew, beside the same network trained on other images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.plots import image_grid, rate_chart
from repro.records import rebuild
from repro.studies import SCALES, SYSTEMS, Drawn, Plan, Report, Study, Trained, controls_of, rate_text, seeded

__all__ = ["Recovery"]


class _System(NamedTuple):
    """An architecture: its configs, and expected seconds to train it once and to draw 1,000 images."""

    name: str
    configs: tuple[str, ...]
    seconds: float
    draw_seconds: float


class _Size(NamedTuple):
    """Architectures, settings of the data of each training but the student's, images in the bank, compared noises."""

    systems: tuple[_System, ...]
    data: dict[str, Mapping[str, Any]]
    bank: int
    noises: int


_TEACHER, _STUDENT, _UNSEEN = "teacher", "student", "other images"


def _halves(data: str, count: int) -> dict[str, Mapping[str, Any]]:
    return {
        _TEACHER: {"data.subset": count},
        "same images": {"data.subset": count},
        "other half": {"data": "HeldOut", "data.of": data, "data.of.holdout": count},
    }


def _apart(count: int) -> dict[str, Mapping[str, Any]]:
    """As :func:`_halves`, of a set so large that two parts of it have no image in common."""
    own = {"data.subset": count, "data.holdout": count}
    return {_TEACHER: own, "same images": own, _UNSEEN: {"data": "HeldOut", "data.of.holdout": count}}


def _cifar(overlay: tuple[str, ...], seconds: float, draw_seconds: float) -> tuple[_System, ...]:
    return (_System("EDMv1", (SYSTEMS["EDMv1"].config, *overlay), seconds, draw_seconds),)


_MIXTURE = {"data": "LowRankMixture", "data.image_shape": [1, 8, 8]}
_CIFAR100: dict[str, Mapping[str, Any]] = {"CIFAR-100": {"data": "CIFAR100"}}
_SIZES = {
    "tiny": _Size(
        (_System("mlp_edm", ("digits/mlp_edm",), 45, 3), _System("ddpmpp_vp", ("digits/ddpmpp_vp",), 90, 6.5)),
        _halves("Digits", 898) | {"mixture": _MIXTURE},
        10_000,
        1000,
    ),
    "cpu": _Size(_cifar(("small/cifar16",), 1000, 150), _apart(5_000), 5_000, 1000),
    "small": _Size(_cifar(("small/cifar",), 3600, 70), _halves("CIFAR10", 25_000) | _CIFAR100, 25_000, 2000),
    "paper": _Size(_cifar((), 250_000, 720), {_TEACHER: {}, "same images": {}, **_CIFAR100}, 50_000, 10_000),
}
_FIRST = 1_000_000


class _Part(NamedTuple):
    """A training and its bank."""

    run: Trained
    bank: Drawn


class Recovery(Study):
    """A teacher, a student of the same architecture trained on a bank that the teacher drew, and their likeness.

    The noises of the bank are others than those compared, and so are the student's starting weights, the order of its
    images and its draws. Beside the student stand the same architecture trained, under seeds of its own, on the
    teacher's images again, on as many other images of the same kind that the teacher never saw (not at the scale
    ``paper``), and on clearly other data (not at the scale ``cpu``).
    """

    name: ClassVar[str] = "recovery"
    figure: ClassVar[str] = "15"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> dict[str, dict[str, _Part]]:
        """For each architecture: train the teacher, draw the student's images, train the others; draw all."""
        size = _SIZES[plan.scale.name]
        return {system.name: _trainings(plan, size, system) for system in size.systems}

    def report(self, report: Report, parts: dict[str, dict[str, _Part]]) -> None:
        """Writes ``recovery.csv``, one comparison an architecture, and one picture of all."""
        rows, grids = [], []
        for system, trainings in parts.items():
            data = [rebuild(part.run.load().data_record) for part in trainings.values()]
            train = [each.images() if each.dtype == torch.uint8 else None for each in data]
            compared = report.compare({role: part.bank for role, part in trainings.items()}, train)
            report.comparison(f"results_{system}", compared)
            report.text(system, "", str(compared))
            rows += _rows(system, compared)
            grids.append(_grid(system, compared))
        report.table("recovery", rows, compared)
        values = {f"rp/{row['system']}_{row['with']}": row["rp"] for row in rows}
        report.figure([_chart(rows)], grids, values=values)
        report.text(*(_text(row) for row in rows))


def _trainings(plan: Plan, size: _Size, system: _System) -> dict[str, _Part]:
    """The trainings of one architecture: the teacher first, then the student, then the others."""
    parts: dict[str, _Part] = {}
    banks: list[Drawn] = []
    roles = [_TEACHER, _STUDENT, *(role for role in size.data if role != _TEACHER)]
    for number, role in enumerate([*size.data, _STUDENT]):
        name = f"{system.name}_{role.replace(' ', '_')}"
        data = {"data": "BankImages", "data.path": str(banks[0].bank)} if role == _STUDENT else size.data[role]
        if role == _UNSEEN:
            data = {**plan.scale.data_at("data.of"), **data}
        needs = banks if role == _STUDENT else []
        run = plan.fit(name, system.configs, {**data, **seeded(number)}, needs, system.seconds)
        drawn = plan.draw(name, run, f"0-{size.noises - 1}", seconds=system.draw_seconds * size.noises / 1000)
        parts[role] = _Part(run, drawn)
        if role == _TEACHER:
            seeds, seconds = f"{_FIRST}-{_FIRST + size.bank - 1}", system.draw_seconds * size.bank / 1000
            banks.append(plan.draw(f"{system.name}_images", run, seeds, seconds=seconds))
    return {role: parts[role] for role in roles}


def _rows(name: str, compared: Comparison) -> list[dict[str, Any]]:
    """The teacher with each of the others: RP and MAE with intervals and shuffled noises, and GL on its own images."""
    rows = []
    for other, role in enumerate(compared.names[1:], 1):
        row: dict[str, Any] = {"system": name, "with": role}
        for key in ("RP", "MAE"):
            score, label = compared.scores[key], key.lower()
            low, high = score.interval(0, other)
            row |= {label: float(score.rates[0, other]), f"{label}_low": low, f"{label}_high": high}
            row[f"{label}_control"] = float(controls_of(score)[0, other])
        test = None if role == _STUDENT else compared.paired_test(_TEACHER, _STUDENT, role)
        memory = compared.memorization[other]
        row |= {"n": compared.n, "p_value_to_student": test and test.p_value}
        rows.append(row | {"images": memory and memory.train_size, "gl": memory and memory.rate})
    return rows


def _text(row: dict[str, Any]) -> str:
    same = row["p_value_to_student"]
    compared = "" if same is None else f"; McNemar test against the student: p = {same:.2g}"
    return (
        f"{row['system']}: teacher - {row['with']}: RP {rate_text(row, 'rp', 'rp_low', 'rp_high')}, "
        f"shuffled noises {row['rp_control']:.3f}; MAE {rate_text(row, 'mae', 'mae_low', 'mae_high')}, "
        f"shuffled {row['mae_control']:.3f}; n = {row['n']:,}{compared}"
    )


def _chart(rows: list[dict[str, Any]]) -> Figure:
    control = max(row["rp_control"] for row in rows)
    return rate_chart(
        [*(row["rp"] for row in rows), control],
        [*((row["rp_low"], row["rp_high"]) for row in rows), (control, control)],
        [*(f"{row['system']}: {row['with']}" for row in rows), "the largest of their controls"],
        "How alike to the teacher, same noise",
        f"RP with 95 % intervals, n = {rows[0]['n']:,}; student: trained on the teacher's images",
        "RP with the teacher",
    )


def _grid(name: str, compared: Comparison) -> Figure:
    images = torch.stack([bank.images[:8] for bank in compared.banks], dim=1)
    seeds = [str(seed) for seed in compared.banks[0].seeds[:8].tolist()]
    return image_grid(images, compared.names, seeds, name, "one row a noise, one column a training")
