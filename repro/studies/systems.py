"""The systems of the paper, unconditional and conditional, and what studies do with systems: where their configs, runs
and banks are, and the jobs that train and draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.errors import UserError
from repro.studies.base import Scale
from repro.studies.jobs import Job

__all__ = [
    "CONDITIONAL_SYSTEMS",
    "SEEDS",
    "SYSTEMS",
    "System",
    "bank_of",
    "configs_folder",
    "draw_job",
    "fit_job",
    "image_words",
    "run_of",
    "training_jobs",
]

SEEDS = {"tiny": "0-999", "cpu": "0-999", "small": "0-1999", "paper": "0-9999"}
"""The noises that systems are compared on, by scale."""

_OVERLAYS = {
    "tiny": ("small/digits.yaml",),
    "cpu": ("small/cifar16.yaml",),
    "small": ("small/cifar.yaml",),
    "paper": (),
}
_CPU_SECONDS = 600.0
_GPU_SECONDS = {"small": 3_600.0, "paper": 250_000.0}


@dataclass(frozen=True)
class System:
    """One of the paper's systems.

    Attributes:
        name: As in the paper.
        config: Its config's file name; the paper's settings on CIFAR-10.
        seconds: Estimated time on one core to train it at the scale ``tiny``.
        narrow: Words of ``repro fit`` at the scales ``tiny`` and ``cpu``.
        tiny: Further words at the scale ``tiny``.
        cpu: Further words at the scale ``cpu``.
        draw_seconds: The same to draw 1,000 images.
        teacher: Name of the system that it learns from, empty for none.
        narrow_teacher: The same at the scales ``tiny`` and ``cpu``, where it is another one.
        weights: Name of the system whose weights it shares and draws with another sampler, empty for its own.
        sampler: Words of ``repro predict`` that choose that sampler.
    """

    name: str
    config: str
    seconds: float = 0.0
    narrow: tuple[str, ...] = ()
    draw_seconds: float = 10.0
    teacher: str = ""
    narrow_teacher: str = ""
    weights: str = ""
    sampler: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()


_V = ("--model.parameterization", "V")
_DEEP = (*_V, "--model.network.num_blocks", "2")
_LONG = ("--trainer.max_steps", "4000", "--model.lr", "1e-3", "--model.ema_halflife", "40_000")
_CT = (*_LONG, "--model.schedule_steps", "4000")
_SLOW = ("--model.lr", "7e-4")
_RK45 = ("--sampler", "RK45", "--sampler.t_end", "1e-3")


def _halvings(first: int, stages: int) -> tuple[str, ...]:
    """Students from ``first`` steps on; a stage is 125 or 250 steps, the last one longer."""
    return ("--model.start_steps", str(first), "--trainer.max_steps", str(stages * 250))


SYSTEMS = {
    system.name: system
    for system in (
        System("DDPMv1", "ddpmv1_cifar", 85, _V),
        System("DDPMv2", "ddpmv2_cifar", 85, _V),
        System("DDPMv3", "ddpmv3_cifar", 75, _V),
        System("DDPMv4", "ddpmv4_cifar", 105, _DEEP),
        System("DDPMv5", "ddpmv5_cifar", draw_seconds=50, weights="DDPMv4", sampler=_RK45),
        System("DDPMv6", "ddpmv6_cifar", 95, _DEEP, 65),
        System("DDPMv7", "ddpmv7_cifar", 70, _V, 50),
        System("DDPMv8", "ddpmv8_cifar", 80, _V, 50),
        System("Multistagev1", "multistagev1_cifar", 135, _V),
        System("Multistagev2", "multistagev2_cifar", 160, _V),
        System("Multistagev3", "multistagev3_cifar", 165, _V),
        System("EDMv1", "edm_cifar", 95),
        System("EDMv2", "edmv2_cifar", 100),
        System("UViT", "uvit_cifar", 330, _V, tiny=_LONG, cpu=_SLOW),
        System("DiT", "dit_cifar", 65, _V, cpu=_SLOW),
        System("CD", "cd_cifar", 180, (), 5, "EDMv2"),
        System("CT", "ct_cifar", 550, (), 5, tiny=_CT),
        System("Progressivev1", "progressivev1_cifar", 135, _halvings(8, 4), 5, "DDPMv3", "Progressivev2"),
        System("Progressivev2", "progressivev2_cifar", 75, _halvings(32, 2), 5, "DDPMv3", "Progressivev3"),
        System("Progressivev3", "progressivev3_cifar", 75, _halvings(128, 2), 15, "DDPMv3"),
    )
}
"""The unconditional ones (Table 1) by name, in the order of the paper."""

CONDITIONAL_SYSTEMS = {
    system.name: system
    for system in (
        System("EDM-cond", "edm_cond_cifar", 95),
        System("Multistage-EDM-cond", "multistage_edm_cond_cifar", 140),
        System("UViT-cond", "uvit_cond_cifar", 330, _V, tiny=_LONG, cpu=_SLOW),
    )
}
"""The class-conditional ones (section 4.1) by name."""


def configs_folder() -> Path:
    """Where the shipped configs are: in the checkout, or below the current folder.

    Raises:
        UserError: neither is there.
    """
    for folder in (Path(__file__).parents[2] / "configs", Path("configs")):
        if folder.is_dir():
            return folder
    raise UserError("the folder configs of the repository is not here; run this in the repository's folder")


def image_words(path: str) -> tuple[str, ...]:
    """Words of ``repro fit`` that train on the images of a folder or an archive.

    Raises:
        UserError: nothing is there.
    """
    if not Path(path).exists():
        raise UserError(f"nothing is at {path}; give --images a folder, zip or tar of images")
    return ("--data", "ImageArchive", "--data.path", path)


def run_of(folder: Path, name: str) -> Path:
    """The run of a system in a study's folder."""
    return folder / "runs" / name


def bank_of(folder: Path, name: str) -> Path:
    """The bank of a system in a study's folder."""
    return folder / "banks" / name


def fit_job(
    folder: Path,
    name: str,
    configs: Sequence[Path],
    options: Sequence[str] = (),
    after: Sequence[str] = (),
    seconds: float = 60.0,
    banks: Sequence[str] = (),
) -> Job:
    """The job ``fit_NAME``: trains a system into its run, or goes on with it.

    Args:
        folder: The study's folder.
        name: Of the system.
        configs: Config files, later ones over earlier ones.
        options: Further words of ``repro fit``.
        after: Names of the systems whose runs it reads.
        seconds: Estimated time on one core.
        banks: Names of the banks that it reads.
    """
    run = run_of(folder, name)
    words = [word for config in configs for word in ("--config", str(config))]
    return Job(
        f"fit_{name}",
        ("fit", *words, *options, "--output", str(run)),
        after=(*(f"fit_{other}" for other in after), *(f"draw_{bank}" for bank in banks)),
        seconds=seconds,
        checkpoint=run / "checkpoints" / "last.ckpt",
    )


def training_jobs(folder: Path, system: System, scale: Scale, data: Sequence[str] = ()) -> Iterator[Job]:
    """The training of one of the paper's systems, under seeds of its own, that of its teachers first.

    Args:
        folder: The study's folder.
        system: One of :data:`SYSTEMS` or :data:`CONDITIONAL_SYSTEMS`.
        scale: On the digits or on CIFAR-10 with a narrow network, or as in the paper.
        data: Words of ``repro fit`` that choose other data than the scale's.
    """
    narrow = scale in ("tiny", "cpu")
    teacher = (narrow and system.narrow_teacher) or system.teacher
    number = str([*SYSTEMS, *CONDITIONAL_SYSTEMS].index(system.name))
    words = {"tiny": system.narrow + system.tiny, "cpu": system.narrow + system.cpu}
    options = [*words.get(scale, ()), *data, "--seed_everything", number]
    options += ["--model.seed", number, "--data.seed", number]
    if teacher:
        yield from training_jobs(folder, SYSTEMS[teacher], scale, data)
        options += ["--model.teacher", str(run_of(folder, teacher))]
    configs = [configs_folder() / name for name in (f"{system.config}.yaml", *_OVERLAYS[scale])]
    seconds = {"tiny": system.seconds, "cpu": _CPU_SECONDS, **_GPU_SECONDS}[scale]
    yield fit_job(folder, system.name, configs, options, (teacher,) if teacher else (), seconds)


def draw_job(
    folder: Path,
    name: str,
    seeds: str,
    options: Sequence[str] = (),
    config: Path | None = None,
    run: Path | None = None,
    weights: str | None = None,
    seconds: float = 10.0,
) -> Job:
    """The job ``draw_NAME``: draws a system's bank.

    Args:
        folder: The study's folder.
        name: Of the system.
        seeds: Which noises, for example ``0-999``.
        options: Further words of ``repro predict``.
        config: Draw from the model of this config, which needs no training.
        run: Draw from this run or checkpoint, which is there already.
        weights: Name of the system whose run is drawn from, after it was trained; by default the system's own.
        seconds: Estimated time on one core.
    """
    trained = weights or name
    source = ("--config", str(config)) if config else ("--ckpt_path", str(run or run_of(folder, trained)))
    words = ("predict", *source, *options, "--seeds", seeds, "--output", str(bank_of(folder, name)))
    return Job(f"draw_{name}", words, after=() if config or run else (f"fit_{trained}",), seconds=seconds)
