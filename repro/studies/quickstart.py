"""The quickstart: both ends of the paper's claim on the handwritten digits, in minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison, compare
from repro.plots import above, beside, heat_map, image_grid, rendered, save_pixels
from repro.registry import build
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job
from repro.studies.systems import bank_of, configs_folder, draw_job, fit_job

__all__ = ["Quickstart"]

SYSTEMS = {"mlp_edm": 45, "ddpmpp_vp": 90, "uvit_flow": 110, "ddpm_subvp": 75}
SUBSETS = {"32": 32, "all": None}
SEEDS = "0-999"
THRESHOLD = 0.95


class Quickstart(Study):
    """Four families with different networks, kernels and samplers, and the empirical optimum, on 32 and on all digits.

    With 32 training images the systems agree with the empirical optimum (memorisation); with all 1,797 they agree with
    each other, are far from the optimum, and draw new images (generalisation). Every score stands beside its control,
    the same banks against shuffled noise.
    """

    name: ClassVar[str] = "quickstart"
    figure: ClassVar[str] = "2 and 6, in miniature"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """For each training set: train each system and draw its bank, draw the optimum's bank."""
        configs, jobs = configs_folder() / "digits", []
        for size, subset in SUBSETS.items():
            options = ("--data.subset", str(subset)) if subset else ()
            for system, seconds in SYSTEMS.items():
                name = f"{system}_{size}"
                jobs.append(fit_job(folder, name, [configs / f"{system}.yaml"], options, seconds=seconds))
                jobs.append(draw_job(folder, name, SEEDS))
            options = ("--model.denoiser.images.subset", str(subset)) if subset else ()
            jobs.append(draw_job(folder, f"optimum_{size}", SEEDS, options, configs / "optimum.yaml"))
        return jobs

    def report(self, folder: Path, scale: Scale = "tiny") -> str:
        """RP and MAE matrices, GL, grids, CSV and TensorBoard logs of both training sets, and one picture of both."""
        names, parts, panels = [*SYSTEMS, "optimum"], [], []
        for size, subset in SUBSETS.items():
            banks = [bank_of(folder, f"{name}_{size}") for name in names]
            data = build("data", "Digits", subset=subset)
            found = compare(banks, "Pixels", data.images(), THRESHOLD, names=names)
            found.write(folder / f"results_{size}")
            found.to_tensorboard(folder / f"results_{size}")
            parts.append(f"Trained on {len(data):,} digits\n\n{found}")
            panels.append([rendered(figure) for figure in _panel(found, len(data))])
        picture = folder / "quickstart.png"
        save_pixels(beside([above(panel) for panel in panels]), picture)
        results = ", ".join(str(folder / f"results_{size}") for size in SUBSETS)
        parts.append(
            f"picture: {picture}\ntables, heat maps and grids: {results}\n"
            f"curves and images: .venv/bin/tensorboard --logdir {folder}"
        )
        return "\n\n".join(parts)


def _panel(found: Comparison, count: int) -> Iterator[Figure]:
    score, rows = found.scores["RP"], 8
    condition = f"pixel cosine > {found.threshold:g}, n = {found.n:,}; below the diagonal: shuffled noises"
    yield heat_map(score.rates, found.names, f"RP, trained on {count:,} digits", condition, score.control_rates)
    images = torch.stack([bank.images[:rows] for bank in found.banks], dim=1)
    seeds = [str(seed) for seed in found.banks[0].seeds[:rows].tolist()]
    yield image_grid(images, found.names, seeds, f"Trained on {count:,} digits", "one row a noise, one column a system")
