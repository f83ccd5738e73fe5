"""Figure 3: GANs and VAEs beside diffusion models, on the same noises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.plots import rate_chart
from repro.registry import build
from repro.studies import Drawn, Plan, Report, Study, rate_cells, rate_text, seeded

__all__ = ["Baselines"]


@dataclass(frozen=True)
class _System:
    """The config that trains a system, expected hours on one core at the scales small and paper (seconds at tiny), its
    settings, and further ones at the scale small."""

    config: str
    hours: tuple[float, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Group:
    """Systems of one data set, which are compared with each other; the baselines are trained twice."""

    data: str
    baselines: tuple[_System, ...]
    diffusion: tuple[_System, _System]


_SMALL_GAN = {"model.width": 64, "model.discriminator_width": 64, "model.lr_decay": 1_280_000}
_SMALL_GAN |= {"trainer.max_steps": 20_000}
_SMALL_VAE = {"model.kl_warmup": 500_000, "trainer.max_steps": 50_000}
_SMALL_UNET = {"model.network.width": 64, "model.lr_warmup": 100_000, "data.batch_size": 128}
_SMALL_UNET |= {"trainer.max_steps": 20_000}
_ON_MNIST = {"data": "MNIST", "data.horizontal_flip": False, "model.network.attention_at": [14]}
_THREE_LEVELS = {"model.network.channel_mult": [1, 2, 2]}


def _tiny(name: str, seconds: float) -> _System:
    return _System(f"digits/{name}", (seconds / 3600, 0))


_DIGITS = _Group(
    "Digits",
    (_tiny("wgan_gp", 60), _tiny("sngan", 60), _tiny("vae", 40), _tiny("vampprior", 50)),
    (_tiny("mlp_edm", 45), _tiny("ddpmpp_vp", 90)),
)
_CIFAR = _Group(
    "CIFAR10",
    (
        _System("wgan_gp_cifar", (30, 3000), small=_SMALL_GAN),
        _System("sngan_cifar", (15, 2000), small=_SMALL_GAN),
    ),
    (
        _System("edm_cifar", (400, 30_000), small=_SMALL_UNET),
        _System("ddpmv3_cifar", (400, 30_000), small=_SMALL_UNET),
    ),
)
_MNIST = _Group(
    "MNIST",
    (_System("vae_mnist", (0.3, 2), small=_SMALL_VAE), _System("vampprior_mnist", (0.5, 3), small=_SMALL_VAE)),
    (
        _System("edm_cifar", (300, 25_000), _ON_MNIST, _SMALL_UNET),
        _System("ddpmv3_cifar", (300, 25_000), {**_ON_MNIST, **_THREE_LEVELS}, _SMALL_UNET),
    ),
)
_GROUPS = {"tiny": (_DIGITS,), "small": (_CIFAR, _MNIST), "paper": (_CIFAR, _MNIST)}


class Baselines(Study):
    """WGAN-GP, SNGAN and VAEs with a standard prior and a VampPrior, each trained twice, beside two diffusion models.

    The second training of a model differs in its seeds only: starting weights, order of the images, draws. All draw
    the same numbered noises; the latent of noise i is made of its first normals. RP of every pair stands beside its
    control, the same banks against shuffled noises.
    """

    name: ClassVar[str] = "baselines"
    figure: ClassVar[str] = "3"

    def plan(self, plan: Plan) -> list[tuple[_Group, dict[str, Drawn]]]:
        """Trains each system, the baselines under two seeds, and draws its bank."""
        return [(group, dict(_banks(plan, group))) for group in _GROUPS[plan.scale.name]]

    def report(self, report: Report, parts: list[tuple[_Group, dict[str, Drawn]]]) -> None:
        """The matrices of each data set, and a table and a picture of the pairs that figure 3 is about."""
        rows: list[dict[str, Any]] = []
        for group, banks in parts:
            data = build("data", group.data)
            compared = report.compare(banks, data.images())
            report.comparison(f"results_{group.data.lower()}", compared)
            report.text(f"Trained on {len(data):,} images of {group.data}", "", str(compared))
            rows += _rows(group, compared)
        report.table("baselines", rows)
        report.figure([_figure(rows)])
        report.text(
            *(
                f"{row['data']}: {row['first']} - {row['second']}: RP {rate_text(row, 'rp')}, "
                f"shuffled noises {row['control']:.3f}"
                for row in rows
            )
        )


def _banks(plan: Plan, group: _Group) -> Iterator[tuple[str, Drawn]]:
    """Label and bank of each training."""
    scale = plan.scale.name
    for system in (*group.baselines, *group.diffusion):
        settings = {**system.settings, **(system.small if scale == "small" else {})}
        seconds = 3600 * system.hours[scale == "paper"]
        for suffix, seeds in {"": {}, "_seed1": seeded(1)}.items():
            label = f"{system.config.rpartition('/')[2]}{suffix}"
            if not suffix or system in group.baselines:
                name = f"{group.data.lower()}_{label}"
                run = plan.fit(name, system.config, {**settings, **seeds}, seconds=seconds)
                yield label, plan.draw(name, run)


def _rows(group: _Group, compared: Comparison) -> list[dict[str, Any]]:
    """RP of the pairs of figure 3: each baseline and its other seed, the baselines of a kind, the diffusion models."""
    score, count = compared.scores["RP"], len(group.baselines)
    pairs = [(2 * place, 2 * place + 1) for place in range(count)]
    pairs += [(2 * place, 2 * place + 2) for place in range(0, count, 2)]
    pairs.append((2 * count, 2 * count + 1))
    judged = {"descriptor": compared.descriptor["name"], "threshold": compared.threshold}
    return [
        {"data": group.data, **judged, "first": compared.names[one], "second": compared.names[other]}
        | rate_cells(score, one, other)
        for one, other in pairs
    ]


def _figure(rows: list[dict[str, Any]]) -> Figure:
    names = [f"{row['data']}: {row['first']} - {row['second']}" for row in rows]
    control = max(row["control"] for row in rows)
    return rate_chart(
        [*(row["rp"] for row in rows), control],
        [*((row["low"], row["high"]) for row in rows), (control, control)],
        [*names, "the largest of their controls"],
        "GANs, VAEs and diffusion models, same noise",
        f"RP with 95 % intervals, n = {rows[0]['n']:,}; control: shuffled noises",
        "RP",
    )
