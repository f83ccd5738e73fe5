"""The systems of the paper, unconditional and conditional, and how a plan trains and draws them at any scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from repro.studies.plan import Drawn, Plan, Trained, seeded

__all__ = ["CONDITIONAL_SYSTEMS", "SYSTEMS", "System", "draw", "three_systems", "train", "trio"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class System:
    """One of the paper's systems.

    Attributes:
        name: As in the paper.
        config: Its config; the paper's settings on CIFAR-10.
        seconds: Expected time on one core to train it at the scale ``tiny``.
        draw_seconds: The same to draw 1,000 images.
        narrow: Settings of its training at the scales ``tiny`` and ``cpu``.
        tiny: Further settings at the scale ``tiny``.
        cpu: Further settings at the scale ``cpu``.
        teacher: Name of the system that it learns from, empty for none.
        narrow_teacher: The same at the scales ``tiny`` and ``cpu``, where it is another one.
        weights: Name of the system whose weights it shares and draws with another sampler, empty for its own.
        sampler: Settings of its drawing that choose that sampler.
    """

    name: str
    config: str
    seconds: float = 0.0
    draw_seconds: float = 10.0
    narrow: Settings = field(default_factory=dict)
    tiny: Settings = field(default_factory=dict)
    cpu: Settings = field(default_factory=dict)
    teacher: str = ""
    narrow_teacher: str = ""
    weights: str = ""
    sampler: Settings = field(default_factory=dict)


_V = {"model.parameterization": "V"}
_DEEP = {**_V, "model.network.num_blocks": 2}
_LONG = {"trainer.max_steps": 4000, "model.lr": 1e-3, "model.ema_halflife": 40_000}
_CT = {**_LONG, "model.schedule_steps": 4000}
_SLOW = {"model.lr": 7e-4}
_RK45 = {"sampler": "RK45", "sampler.t_end": 1e-3}


def _halvings(first: int, stages: int) -> Settings:
    """Students from ``first`` steps on; a stage is 125 or 250 steps, the last one longer."""
    return {"model.start_steps": first, "trainer.max_steps": stages * 250}


def _student(name: str, config: str, seconds: float, draw_seconds: float, narrow: Settings, teacher: str) -> System:
    return System(name, config, seconds, draw_seconds, narrow, teacher="DDPMv3", narrow_teacher=teacher)


SYSTEMS = {
    system.name: system
    for system in (
        System("DDPMv1", "ddpmv1_cifar", 85, narrow=_V),
        System("DDPMv2", "ddpmv2_cifar", 85, narrow=_V),
        System("DDPMv3", "ddpmv3_cifar", 75, narrow=_V),
        System("DDPMv4", "ddpmv4_cifar", 105, narrow=_DEEP),
        System("DDPMv5", "ddpmv5_cifar", draw_seconds=50, weights="DDPMv4", sampler=_RK45),
        System("DDPMv6", "ddpmv6_cifar", 95, 65, narrow=_DEEP),
        System("DDPMv7", "ddpmv7_cifar", 70, 50, narrow=_V),
        System("DDPMv8", "ddpmv8_cifar", 80, 50, narrow=_V),
        System("Multistagev1", "multistagev1_cifar", 135, narrow=_V),
        System("Multistagev2", "multistagev2_cifar", 160, narrow=_V),
        System("Multistagev3", "multistagev3_cifar", 165, narrow=_V),
        System("EDMv1", "edm_cifar", 95),
        System("EDMv2", "edmv2_cifar", 100),
        System("UViT", "uvit_cifar", 330, narrow=_V, tiny=_LONG, cpu=_SLOW),
        System("DiT", "dit_cifar", 65, narrow=_V, cpu=_SLOW),
        System("CD", "cd_cifar", 180, 5, teacher="EDMv2"),
        System("CT", "ct_cifar", 550, 5, tiny=_CT),
        _student("Progressivev1", "progressivev1_cifar", 135, 5, _halvings(8, 4), "Progressivev2"),
        _student("Progressivev2", "progressivev2_cifar", 75, 5, _halvings(32, 2), "Progressivev3"),
        _student("Progressivev3", "progressivev3_cifar", 75, 15, _halvings(128, 2), ""),
    )
}
"""The unconditional ones (Table 1) by name, in the order of the paper."""

CONDITIONAL_SYSTEMS = {
    system.name: system
    for system in (
        System("EDM-cond", "edm_cond_cifar", 95),
        System("Multistage-EDM-cond", "multistage_edm_cond_cifar", 140),
        System("UViT-cond", "uvit_cond_cifar", 330, narrow=_V, tiny=_LONG, cpu=_SLOW),
    )
}
"""The class-conditional ones (section 4.1) by name."""

_DIGITS = {"mlp_edm": 45.0, "ddpmpp_vp": 90.0, "uvit_flow": 110.0}
_THREE = ("EDMv1", "DDPMv3", "UViT")
_TRIO = ("EDMv1", "DDPMv6", "Multistagev1")


def train(plan: Plan, name: str, settings: Settings | None = None, seconds: float | None = None) -> Trained:
    """Trains one of the paper's systems under seeds of its own, its teachers first.

    Args:
        plan: The plan that the training becomes part of.
        name: Of the system, one of :data:`SYSTEMS` or :data:`CONDITIONAL_SYSTEMS`.
        settings: Further settings of this training, not of its teachers, by dotted key.
        seconds: Expected time; by default that of the system at the scale ``tiny``, else the scale's.
    """
    systems = SYSTEMS | CONDITIONAL_SYSTEMS
    system, scale = systems[name], plan.scale
    narrow = scale.name in ("tiny", "cpu")
    own = {**system.narrow, **(system.tiny if scale.name == "tiny" else system.cpu)} if narrow else {}
    own, needs = {**own, **seeded([*systems].index(name)), **(settings or {})}, []
    if teacher := (narrow and system.narrow_teacher) or system.teacher:
        needs.append(train(plan, teacher))
        own["model.teacher"] = str(needs[0].run)
    expected = system.seconds if scale.name == "tiny" else None
    return plan.fit(name, [system.config, *scale.overlays], own, needs, expected if seconds is None else seconds)


def draw(plan: Plan, name: str, seeds: str | None = None) -> Drawn:
    """Draws the bank of one of the paper's systems, trained first; see :func:`train`."""
    system = (SYSTEMS | CONDITIONAL_SYSTEMS)[name]
    seconds = system.draw_seconds if plan.scale.name == "tiny" else None
    return plan.draw(name, train(plan, system.weights or name), seeds, system.sampler, seconds)


def three_systems(plan: Plan, settings: Settings | None = None, seconds: float | None = None) -> dict[str, Trained]:
    """Trains three architectures under three kernels: EDMv1, DDPMv3 and U-ViT, or three small ones on the digits.

    Args:
        plan: The plan that the trainings become part of.
        settings: Further settings of each by dotted key.
        seconds: Expected time of each; by default of these systems as they are.
    """
    if plan.scale.name != "tiny":
        return {name: train(plan, name, settings, seconds) for name in _THREE}
    return {
        name: plan.fit(name, f"digits/{name}", {**seeded(number), **(settings or {})}, seconds=seconds or expected)
        for number, (name, expected) in enumerate(_DIGITS.items())
    }


def trio(plan: Plan) -> dict[str, Trained]:
    """Trains the three architectures that studies look into: those of figure 7, or three small ones on the digits."""
    if plan.scale.name == "tiny":
        return {name: plan.fit(name, f"digits/{name}", seconds=seconds) for name, seconds in _DIGITS.items()}
    return {name: plan.fit(name, [SYSTEMS[name].config, *plan.scale.overlays]) for name in _TRIO}
