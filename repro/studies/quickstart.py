"""The quickstart: both ends of the paper's claim on the handwritten digits, in minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from repro.errors import UserError
from repro.studies.base import Scale, Study
from repro.studies.jobs import Job

__all__ = ["Quickstart"]

SYSTEMS = {"mlp_edm": 60, "ddpmpp_vp": 100, "uvit_flow": 90, "ddpm_subvp": 100}
SUBSETS = {"32": ("--data.subset", "32"), "all": ()}
SEEDS = "0-999"


def configs_folder() -> Path:
    """Where the shipped configs are: in the checkout, or below the current folder.

    Raises:
        UserError: neither is there.
    """
    for folder in (Path(__file__).parents[2] / "configs", Path("configs")):
        if folder.is_dir():
            return folder
    raise UserError("the folder configs of the repository is not here; run this in the repository's folder")


class Quickstart(Study):
    """Four families with different networks, kernels and samplers, and the empirical optimum, on 32 and on all digits.

    With 32 training images the systems agree with the empirical optimum (memorisation); with all 1,797 they agree with
    each other, are far from the optimum, and draw new images (generalisation). Every score stands beside its control,
    the same banks against shuffled noise.
    """

    name: ClassVar[str] = "quickstart"
    figure: ClassVar[str] = "2 and 6, in miniature"

    def jobs(self, folder: Path, scale: Scale = "tiny") -> list[Job]:
        """For each training set: train and sample each system, sample the optimum, compare."""
        configs = configs_folder() / "digits"
        jobs = []
        for size, subset in SUBSETS.items():
            names = []
            for system, seconds in SYSTEMS.items():
                run, name = folder / f"{system}_{size}", f"{system}_{size}"
                fit = ("fit", "--config", f"{configs / system}.yaml", "--output", str(run), *subset)
                last = run / "checkpoints" / "last.ckpt"
                jobs.append(Job(f"fit_{name}", fit, seconds=seconds, checkpoint=last))
                draw = ("predict", "--ckpt_path", str(run), "--seeds", SEEDS, "--bank", str(folder / "banks" / name))
                jobs.append(Job(f"draw_{name}", draw, after=(f"fit_{name}",), seconds=15))
                names.append(name)
            name = f"optimum_{size}"
            chosen = ("--model.denoiser.images.subset", subset[1]) if subset else ()
            draw = ("predict", "--config", f"{configs / 'optimum'}.yaml", *chosen, "--seeds", SEEDS)
            jobs.append(Job(f"draw_{name}", (*draw, "--bank", str(folder / "banks" / name)), seconds=15))
            names.append(name)
            compare = ["compare", *(str(folder / "banks" / name) for name in names), "--names", *[*SYSTEMS, "optimum"]]
            compare += ["--descriptor", "Pixels", "--train", "Digits", *(f"--train.{w[7:]}" if w.startswith("--data.") else w for w in subset)]
            compare += ["--output", str(folder / f"compare_{size}")]
            jobs.append(Job(f"compare_{size}", tuple(compare), tuple(f"draw_{n}" for n in names), seconds=10))
        return jobs
