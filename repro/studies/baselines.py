"""Figure 3: GANs and VAEs beside diffusion models, on the same noises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from matplotlib.figure import Figure

from repro.comparison import Comparison, compare
from repro.plots import rate_chart, save_figure
from repro.registry import build
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job
from repro.studies.system_table import rate_cells, write_rows
from repro.studies.systems import bank_of, configs_folder, draw_job, fit_job

__all__ = ["Baselines"]


class _System(NamedTuple):
    """The config that trains a system, its estimated seconds on one core, and further options of ``repro fit``."""

    config: str
    seconds: Mapping[str, float]
    options: tuple[str, ...] = ()
    small: tuple[str, ...] = ()


class _Group(NamedTuple):
    """Systems of one data set, which are compared with each other; the baselines are trained twice."""

    data: str
    baselines: tuple[_System, _System] | tuple[_System, _System, _System, _System]
    diffusion: tuple[_System, _System]
    descriptor: str | None = None
    threshold: float | None = None


class _Training(NamedTuple):
    """One training of a system: its name in the study's folder, its label in figures, and its further options."""

    name: str
    label: str
    config: str
    options: tuple[str, ...]
    seconds: float


_OTHER_SEED = ("--seed_everything", "1", "--model.seed", "1", "--data.seed", "1")
_SMALL_GAN = ("--model.width", "64", "--model.discriminator_width", "64", "--model.lr_decay", "1_280_000")
_SMALL_GAN += ("--trainer.max_steps", "20_000")
_SMALL_VAE = ("--model.kl_warmup", "500_000", "--trainer.max_steps", "50_000")
_SMALL_UNET = ("--model.network.width", "64", "--model.lr_warmup", "100_000", "--data.batch_size", "128")
_SMALL_UNET += ("--trainer.max_steps", "20_000")
_ON_MNIST = ("--data", "MNIST", "--data.horizontal_flip", "false", "--model.network.attention_at", "[14]")
_THREE_LEVELS = ("--model.network.channel_mult", "[1,2,2]")


def _hours(small: float, paper: float) -> Mapping[str, float]:
    return {"small": 3600 * small, "paper": 3600 * paper}


_DIGITS = _Group(
    "Digits",
    (
        _System("digits/wgan_gp", {"tiny": 60}),
        _System("digits/sngan", {"tiny": 60}),
        _System("digits/vae", {"tiny": 40}),
        _System("digits/vampprior", {"tiny": 50}),
    ),
    (_System("digits/mlp_edm", {"tiny": 45}), _System("digits/ddpmpp_vp", {"tiny": 90})),
    "Pixels",
    0.95,
)
_CIFAR = _Group(
    "CIFAR10",
    (
        _System("wgan_gp_cifar", _hours(30, 3000), small=_SMALL_GAN),
        _System("sngan_cifar", _hours(15, 2000), small=_SMALL_GAN),
    ),
    (
        _System("edm_cifar", _hours(400, 30_000), small=_SMALL_UNET),
        _System("ddpmv3_cifar", _hours(400, 30_000), small=_SMALL_UNET),
    ),
)
_MNIST = _Group(
    "MNIST",
    (
        _System("vae_mnist", _hours(0.3, 2), small=_SMALL_VAE),
        _System("vampprior_mnist", _hours(0.5, 3), small=_SMALL_VAE),
    ),
    (
        _System("edm_cifar", _hours(300, 25_000), _ON_MNIST, _SMALL_UNET),
        _System("ddpmv3_cifar", _hours(300, 25_000), (*_ON_MNIST, *_THREE_LEVELS), _SMALL_UNET),
    ),
)
_GROUPS: Mapping[str, tuple[_Group, ...]] = {"tiny": (_DIGITS,), "small": (_CIFAR, _MNIST), "paper": (_CIFAR, _MNIST)}
_SEEDS = {"tiny": "0-999", "small": "0-1999", "paper": "0-9999"}


def _trainings(group: _Group, scale: Scale) -> list[_Training]:
    found = []
    for system in (*group.baselines, *group.diffusion):
        options = (*system.options, *(system.small if scale == "small" else ()))
        for suffix, seeds in {"": (), "_seed1": _OTHER_SEED}.items():
            label = f"{system.config.rpartition('/')[2]}{suffix}"
            name = f"{group.data.lower()}_{label}"
            if not suffix or system in group.baselines:
                found.append(_Training(name, label, system.config, (*options, *seeds), system.seconds[scale]))
    return found


class Baselines(Study):
    """WGAN-GP, SNGAN and VAEs with a standard prior and a VampPrior, each trained twice, beside two diffusion models.

    The second training of a model differs in its seeds only: starting weights, order of the images, draws. All draw
    the same numbered noises; the latent of noise i is made of its first normals. RP of every pair stands beside its
    control, the same banks against shuffled noises.
    """

    name: ClassVar[str] = "baselines"
    figure: ClassVar[str] = "3"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """Trains each system, the baselines under two seeds, and draws its bank."""
        jobs = []
        for group in _GROUPS[scale]:
            for each in _trainings(group, scale):
                config = configs_folder() / f"{each.config}.yaml"
                jobs.append(fit_job(folder, each.name, [config], each.options, seconds=each.seconds))
                jobs.append(draw_job(folder, each.name, _SEEDS[scale]))
        return jobs

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """The matrices of each data set, and a table and a picture of the pairs that figure 3 is about."""
        parts, rows = [], []
        for group in _GROUPS[scale]:
            trainings, data = _trainings(group, scale), build("data", group.data)
            banks, labels = ([getattr(each, key) for each in trainings] for key in ("name", "label"))
            banks = [bank_of(folder, name) for name in banks]
            found = compare(banks, group.descriptor, data.images(), group.threshold, names=labels)
            results = folder / f"results_{group.data.lower()}"
            found.write(results)
            found.to_tensorboard(results)
            parts.append(f"Trained on {len(data):,} images of {group.data}\n\n{found}")
            rows += _rows(group, found)
        write_rows(folder / "baselines.csv", rows)
        save_figure(_figure(rows), folder / "baselines.png")
        parts.append(_text(rows))
        parts.append(
            f"picture: {folder / 'baselines.png'}\ntables, heat maps and grids: {folder / 'results_*'}\n"
            f"curves and images: tensorboard --logdir {folder}"
        )
        return "\n\n".join(parts)


def _rows(group: _Group, found: Comparison) -> list[dict[str, Any]]:
    """RP of the pairs of figure 3: each baseline and its other seed, the baselines of a kind, the diffusion models."""
    score, count = found.scores["RP"], len(group.baselines)
    pairs = [(2 * place, 2 * place + 1) for place in range(count)]
    pairs += [(2 * place, 2 * place + 2) for place in range(0, count, 2)]
    pairs.append((2 * count, 2 * count + 1))
    return [
        {"data": group.data, "first": found.names[one], "second": found.names[other], **rate_cells(score, one, other)}
        for one, other in pairs
    ]


def _text(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{row['data']}: {row['first']} - {row['second']}: RP {row['rp']:.3f} ({row['low']:.3f}-{row['high']:.3f}), "
        f"shuffled noises {row['control']:.3f}"
        for row in rows
    ]
    return "\n".join(lines)


def _figure(rows: list[dict[str, Any]]) -> Figure:
    names = [f"{row['data']}: {row['first']} - {row['second']}" for row in rows]
    control = max(row["control"] for row in rows)
    rates, intervals = [row["rp"] for row in rows], [(row["low"], row["high"]) for row in rows]
    return rate_chart(
        [*rates, control],
        [*intervals, (control, control)],
        [*names, "the largest of their controls"],
        "GANs, VAEs and diffusion models, same noise",
        f"RP with 95 % intervals, n = {rows[0]['n']:,}; control: shuffled noises",
        "RP",
    )
