"""Figure 15: a network trained on what another one drew, beside the same network trained on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure

from repro.checkpoints.loading import load_model
from repro.comparison import Comparison, compare
from repro.plots import above, beside, image_grid, rate_chart, rendered, save_pixels
from repro.records import rebuild
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job, longest_first
from repro.studies.measuring import log_figure
from repro.studies.system_table import write_rows
from repro.studies.systems import SYSTEMS, bank_of, configs_folder, draw_job, fit_job, run_of

__all__ = ["Recovery"]


class _System(NamedTuple):
    """An architecture: its configs, and estimated seconds to train it once and to draw 1,000 images."""

    name: str
    configs: tuple[str, ...]
    seconds: float
    draw_seconds: float


class _Size(NamedTuple):
    """Architectures, what each is trained on besides the bank, images in the bank, compared noises, and the score."""

    systems: tuple[_System, ...]
    data: dict[str, tuple[str, ...]]
    bank: int
    noises: int
    descriptor: str | None = None
    threshold: float | None = None


_TEACHER, _STUDENT = "teacher", "student"


def _halves(data: str, count: int) -> dict[str, tuple[str, ...]]:
    return {
        _TEACHER: ("--data.subset", str(count)),
        "same images": ("--data.subset", str(count)),
        "other half": ("--data", "HeldOut", "--data.of", data, "--data.of.holdout", str(count)),
    }


def _cifar(overlay: tuple[str, ...], seconds: float, draw_seconds: float) -> tuple[_System, ...]:
    return (_System("EDMv1", (SYSTEMS["EDMv1"].config, *overlay), seconds, draw_seconds),)


_MIXTURE = ("--data", "LowRankMixture", "--data.image_shape", "[1,8,8]")
_CIFAR100 = {"CIFAR-100": ("--data", "CIFAR100")}
_SIZES = {
    "tiny": _Size(
        (
            _System("mlp_edm", ("digits/mlp_edm",), 45, 3),
            _System("ddpmpp_vp", ("digits/ddpmpp_vp",), 90, 6.5),
        ),
        _halves("Digits", 898) | {"mixture": _MIXTURE},
        10_000,
        1000,
        "Pixels",
        0.95,
    ),
    "small": _Size(
        _cifar(("small/cifar",), 3600, 70),
        _halves("CIFAR10", 25_000) | _CIFAR100,
        25_000,
        2000,
    ),
    "paper": _Size(
        _cifar((), 250_000, 720),
        {_TEACHER: (), "same images": ()} | _CIFAR100,
        50_000,
        10_000,
    ),
}
_FIRST = 1_000_000
_SEEDS = ("seed_everything", "model.seed", "data.seed")


class Recovery(Study):
    """A teacher, a student of the same architecture trained on a bank that the teacher drew, and their likeness.

    The noises of the bank are others than those compared, and so are the student's starting weights, the order of its
    images and its draws. Beside the student stand the same architecture trained, under seeds of its own, on the
    teacher's images again, on as many other images of the same kind that the teacher never saw (at the scales ``tiny``
    and ``small``), and on clearly other data.
    """

    name: ClassVar[str] = "recovery"
    figure: ClassVar[str] = "15"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """For each architecture: train the teacher, draw the student's images, train the others; draw all."""
        size, jobs, configs = _SIZES[scale], [], configs_folder()
        for system in size.systems:
            files, bank = [configs / f"{config}.yaml" for config in system.configs], f"{system.name}_images"
            trainings = size.data | {_STUDENT: ("--data", "BankImages", "--data.path", str(bank_of(folder, bank)))}
            for number, (role, options) in enumerate(trainings.items()):
                name, banks = _name(system, role), [bank] if role == _STUDENT else []
                words = (*options, *(word for key in _SEEDS for word in (f"--{key}", str(number))))
                jobs.append(fit_job(folder, name, files, words, seconds=system.seconds, banks=banks))
                jobs.append(
                    draw_job(folder, name, _seeds(0, size.noises), seconds=system.draw_seconds * size.noises / 1000)
                )
                if role == _TEACHER:
                    seconds = system.draw_seconds * size.bank / 1000
                    jobs.append(draw_job(folder, bank, _seeds(_FIRST, size.bank), weights=name, seconds=seconds))
        return longest_first({job.name: job for job in jobs})

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """``recovery.csv``, one comparison an architecture, and one picture of all."""
        size, parts, rows, grids = _SIZES[scale], [], [], []
        for system in size.systems:
            found = _compared(folder, size, system)
            results = folder / f"results_{system.name}"
            found.write(results)
            found.to_tensorboard(results)
            parts.append(f"{system.name}\n\n{found}")
            rows += _rows(system.name, found)
            grids.append(_grid(system.name, found))
        write_rows(folder / "recovery.csv", rows)
        picture = above([rendered(_chart(rows)), beside([rendered(grid) for grid in grids])])
        save_pixels(picture, folder / "recovery.png")
        log_figure(
            folder / "results", self.name, picture, {f"rp/{row['system']}_{row['with']}": row["rp"] for row in rows}
        )
        parts.append("\n".join(_text(row) for row in rows))
        parts.append(
            f"picture: {folder / 'recovery.png'}\ntable: {folder / 'recovery.csv'}; of every pair: {folder}/results_*\n"
            f"curves and images: tensorboard --logdir {folder}"
        )
        return "\n\n".join(parts)


def _name(system: _System, role: str) -> str:
    return f"{system.name}_{role.replace(' ', '_')}"


def _seeds(first: int, count: int) -> str:
    return f"{first}-{first + count - 1}"


def _roles(size: _Size) -> list[str]:
    """The teacher first, then the student, then the others."""
    return [_TEACHER, _STUDENT, *(role for role in size.data if role != _TEACHER)]


def _compared(folder: Path, size: _Size, system: _System) -> Comparison:
    """All models of one architecture, each beside the images that it was trained on."""
    roles = _roles(size)
    names = [_name(system, role) for role in roles]
    data = [rebuild(load_model(run_of(folder, name)).data_record) for name in names]
    train = [each.images() if each.dtype == torch.uint8 else None for each in data]
    return compare([bank_of(folder, name) for name in names], size.descriptor, train, size.threshold, names=roles)


def _rows(name: str, found: Comparison) -> list[dict[str, Any]]:
    """The teacher with each of the others: RP and MAE with intervals and shuffled noises, and GL on its own images."""
    rows = []
    for other, role in enumerate(found.names[1:], 1):
        row: dict[str, Any] = {"system": name, "with": role}
        for key in ("RP", "MAE"):
            score, label = found.scores[key], key.lower()
            low, high = score.interval(0, other)
            row |= {label: float(score.rates[0, other]), f"{label}_low": low, f"{label}_high": high}
            row[f"{label}_control"] = float(score.control_rates[0, other])
        test = None if role == _STUDENT else found.paired_test(_TEACHER, _STUDENT, role)
        memory = found.memorization[other]
        row |= {"n": found.n, "p_value_to_student": test and test.p_value}
        rows.append(row | {"images": memory and memory.train_size, "gl": memory and memory.rate})
    return rows


def _text(row: dict[str, Any]) -> str:
    same = row["p_value_to_student"]
    compared = "" if same is None else f"; McNemar test against the student: p = {same:.2g}"
    return (
        f"{row['system']}: teacher - {row['with']}: RP {row['rp']:.3f} ({row['rp_low']:.3f}-{row['rp_high']:.3f}), "
        f"shuffled noises {row['rp_control']:.3f}; MAE {row['mae']:.3f} ({row['mae_low']:.3f}-{row['mae_high']:.3f}), "
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


def _grid(name: str, found: Comparison) -> Figure:
    images = torch.stack([bank.images[:8] for bank in found.banks], dim=1)
    seeds = [str(seed) for seed in found.banks[0].seeds[:8].tolist()]
    return image_grid(images, found.names, seeds, name, "one row a noise, one column a training")
