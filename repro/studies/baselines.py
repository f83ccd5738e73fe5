"""Figure 3: GANs and VAEs beside diffusion models, on the same noises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.plots import rate_chart
from repro.registry import build
from repro.studies import SCALES, Drawn, Plan, Report, Study, rate_cells, rate_text, seeded

__all__ = ["Baselines"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class _System:
    """The config that trains a system, expected hours on one core (one GPU at the scale paper), and its settings."""

    config: str
    hours: float
    settings: Settings = field(default_factory=dict)
    overlays: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """Systems of one data set, which are compared with each other; the baselines are trained twice."""

    data: str
    baselines: tuple[_System, ...]
    diffusion: tuple[_System, _System]


_GAN_CPU = {"model.width": 32, "model.discriminator_width": 32, "model.lr_decay": 256_000, "data.resize": 16}
_GAN_CPU |= {"trainer.max_steps": 4000}
_GAN_SMALL = {"model.width": 64, "model.discriminator_width": 64, "model.lr_decay": 1_280_000}
_GAN_SMALL |= {"trainer.max_steps": 20_000}
_VAE_SMALL = {"model.kl_warmup": 500_000, "trainer.max_steps": 50_000}
_UNET_SMALL = {"model.network.width": 64, "model.lr_warmup": 100_000, "data.batch_size": 128}
_UNET_SMALL |= {"trainer.max_steps": 20_000}
_ON_MNIST = {"data": "MNIST", "data.horizontal_flip": False, "model.network.attention_at": [14]}
_THREE_LEVELS = {"model.network.channel_mult": [1, 2, 2]}
_CIFAR16 = ("small/cifar16",)


def _tiny(name: str, seconds: float) -> _System:
    return _System(f"digits/{name}", seconds / 3600)


def _cifar(gan: Settings, unet: Settings, gan_hours: tuple[float, float], hours: float) -> _Group:
    gans = (_System("wgan_gp_cifar", gan_hours[0], gan), _System("sngan_cifar", gan_hours[1], gan))
    return _Group("CIFAR10", gans, (_System("edm_cifar", hours, unet), _System("ddpmv3_cifar", hours, unet)))


def _mnist(vae: Settings, unet: Settings, vae_hours: tuple[float, float], hours: float) -> _Group:
    vaes = (_System("vae_mnist", vae_hours[0], vae), _System("vampprior_mnist", vae_hours[1], vae))
    two = ({**_ON_MNIST, **unet}, {**_ON_MNIST, **_THREE_LEVELS, **unet})
    return _Group("MNIST", vaes, (_System("edm_cifar", hours, two[0]), _System("ddpmv3_cifar", hours, two[1])))


_GROUPS = {
    "tiny": (
        _Group(
            "Digits",
            (_tiny("wgan_gp", 60), _tiny("sngan", 60), _tiny("vae", 40), _tiny("vampprior", 50)),
            (_tiny("mlp_edm", 45), _tiny("ddpmpp_vp", 90)),
        ),
    ),
    "cpu": (
        _Group(
            "CIFAR10",
            (_System("wgan_gp_cifar", 0.25, _GAN_CPU), _System("sngan_cifar", 0.15, _GAN_CPU)),
            (
                _System("edm_cifar", 0.3, {}, _CIFAR16),
                _System("ddpmv3_cifar", 0.3, {"model.parameterization": "V", **seeded(1)}, _CIFAR16),
            ),
        ),
    ),
    "small": (_cifar(_GAN_SMALL, _UNET_SMALL, (30, 15), 400), _mnist(_VAE_SMALL, _UNET_SMALL, (0.3, 0.5), 300)),
    "paper": (_cifar({}, {}, (3000, 2000), 30_000), _mnist({}, {}, (2, 3), 25_000)),
}


class Baselines(Study):
    """WGAN-GP, SNGAN and VAEs with a standard prior and a VampPrior, each trained twice, beside two diffusion models.

    The second training of a model differs in its seeds only: starting weights, order of the images, draws. All draw
    the same numbered noises; the latent of noise i is made of its first normals. RP of every pair stands beside its
    control, the same banks against shuffled noises.
    """

    name: ClassVar[str] = "baselines"
    figure: ClassVar[str] = "3"
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)
    on_images: ClassVar[bool] = True

    def plan(self, plan: Plan) -> list[tuple[_Group, dict[str, Drawn]]]:
        """Trains each system, the baselines under two seeds, and draws its bank."""
        return [(group, dict(_banks(plan, group))) for group in _GROUPS[plan.scale.name]]

    def report(self, report: Report, parts: list[tuple[_Group, dict[str, Drawn]]]) -> None:
        """Writes the matrices of each data set, and a table and a picture of the pairs that figure 3 is about."""
        rows: list[dict[str, Any]] = []
        for group, banks in parts:
            data = report.scale.build_data() if group.data == report.scale.data else build("data", group.data)
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
    for system in (*group.baselines, *group.diffusion):
        for suffix, seeds in {"": {}, "_seed1": seeded(1)}.items():
            label = f"{system.config.rpartition('/')[2]}{suffix}"
            if not suffix or system in group.baselines:
                name = f"{group.data.lower()}_{label}"
                configs = [system.config, *system.overlays] if system.overlays else system.config
                run = plan.fit(name, configs, {**system.settings, **seeds}, seconds=3600 * system.hours)
                yield label, plan.draw(name, run)


def _rows(group: _Group, compared: Comparison) -> list[dict[str, Any]]:
    """RP of the pairs of figure 3: each baseline and its other seed, the baselines of a kind, the diffusion models."""
    score, count = compared.scores["RP"], len(group.baselines)
    pairs = [(2 * index, 2 * index + 1) for index in range(count)]
    pairs += [(2 * index, 2 * index + 2) for index in range(0, count, 2)]
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
