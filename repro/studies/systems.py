"""What studies do with systems: where their configs, runs and banks are, and the jobs that train and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro.errors import UserError
from repro.studies.jobs import Job

__all__ = ["bank_of", "configs_folder", "draw_job", "fit_job", "run_of"]


def configs_folder() -> Path:
    """Where the shipped configs are: in the checkout, or below the current folder.

    Raises:
        UserError: neither is there.
    """
    for folder in (Path(__file__).parents[2] / "configs", Path("configs")):
        if folder.is_dir():
            return folder
    raise UserError("the folder configs of the repository is not here; run this in the repository's folder")


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
) -> Job:
    """The job ``fit_NAME``: trains a system into its run, or goes on with it.

    Args:
        folder: The study's folder.
        name: Of the system.
        configs: Config files, later ones over earlier ones.
        options: Further words of ``repro fit``.
        after: Names of the systems whose runs it reads.
        seconds: Estimated time on one core.
    """
    run = run_of(folder, name)
    words = [word for config in configs for word in ("--config", str(config))]
    return Job(
        f"fit_{name}",
        ("fit", *words, *options, "--output", str(run)),
        after=tuple(f"fit_{other}" for other in after),
        seconds=seconds,
        checkpoint=run / "checkpoints" / "last.ckpt",
    )


def draw_job(
    folder: Path,
    name: str,
    seeds: str,
    options: Sequence[str] = (),
    config: Path | None = None,
    run: Path | None = None,
    seconds: float = 10.0,
) -> Job:
    """The job ``draw_NAME``: draws a system's bank.

    Args:
        folder: The study's folder.
        name: Of the system.
        seeds: Which noises, for example ``0-999``.
        options: Further words of ``repro predict``.
        config: Draw from the model of this config, which needs no training.
        run: Draw from this run or checkpoint; by default from the system's own, after ``fit_NAME``.
        seconds: Estimated time on one core.
    """
    source = ("--config", str(config)) if config else ("--ckpt_path", str(run or run_of(folder, name)))
    words = ("predict", *source, *options, "--seeds", seeds, "--output", str(bank_of(folder, name)))
    return Job(f"draw_{name}", words, after=() if config or run else (f"fit_{name}",), seconds=seconds)
