"""The quickstart: both ends of the paper's claim on the handwritten digits, in minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison
from repro.noise import parse_seeds
from repro.plots import heat_map, image_grid
from repro.registry import build
from repro.studies import Drawn, Plan, Report, Study

__all__ = ["Quickstart"]

SYSTEMS = {"mlp_edm": 45, "ddpmpp_vp": 90, "uvit_flow": 110, "ddpm_subvp": 75}
SUBSETS = {"32": 32, "all": None}


class Quickstart(Study):
    """Four families with different networks, kernels and samplers, and the empirical optimum, on 32 and on all digits.

    With 32 training images the systems agree with the empirical optimum (memorisation); with all 1,797 they agree with
    each other, are far from the optimum, and draw new images (generalisation). Every score stands beside its control,
    the same banks against shuffled noise.

    Args:
        seeds: Which noises; by default 0-999.
    """

    name: ClassVar[str] = "quickstart"
    figure: ClassVar[str] = "2 and 6, in miniature"
    scales: ClassVar[tuple[str, ...]] = ("tiny",)

    def __init__(self, seeds: str | None = None) -> None:
        if seeds is not None:
            parse_seeds(seeds)
        self.seeds = seeds

    def plan(self, plan: Plan) -> dict[str, dict[str, Drawn]]:
        """For each training set: train each system and draw its bank, draw the optimum's bank."""
        banks: dict[str, dict[str, Drawn]] = {}
        for size, subset in SUBSETS.items():
            images = {"data.subset": subset} if subset else {}
            banks[size] = {}
            for system, seconds in SYSTEMS.items():
                run = plan.fit(f"{system}_{size}", f"digits/{system}", images, seconds=seconds)
                banks[size][system] = plan.draw(run.name, run, self.seeds)
            images = {"model.denoiser.images.subset": subset} if subset else {}
            banks[size]["optimum"] = plan.draw(f"optimum_{size}", "digits/optimum", self.seeds, images)
        return banks

    def report(self, report: Report, parts: dict[str, dict[str, Drawn]]) -> None:
        """RP and MAE matrices, GL, grids, CSV and TensorBoard logs of both training sets, and one picture of both."""
        figures: list[list[Figure]] = []
        for size, banks in parts.items():
            data = build("data", report.scale.data, subset=SUBSETS[size])
            compared = report.compare(banks, data.images())
            report.comparison(f"results_{size}", compared)
            report.text(f"Trained on {len(data):,} digits", "", str(compared))
            figures.append([*_panel(compared, len(data))])
        report.figure(figures)


def _panel(compared: Comparison, count: int) -> Iterator[Figure]:
    score, rows = compared.scores["RP"], 8
    condition = f"pixel cosine > {compared.threshold:g}, n = {compared.n:,}; below the diagonal: shuffled noises"
    yield heat_map(score.rates, compared.names, f"RP, trained on {count:,} digits", condition, score.control_rates)
    images = torch.stack([bank.images[:rows] for bank in compared.banks], dim=1)
    seeds = [str(seed) for seed in compared.banks[0].seeds[:rows].tolist()]
    title, subtitle = f"Trained on {count:,} digits", "one row a noise, one column a system"
    yield image_grid(images, compared.names, seeds, title, subtitle)
