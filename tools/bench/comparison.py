"""A whole comparison against its bare arithmetic, and against the pair-by-pair way, in one run.

    python tools/bench/comparison.py --systems 20 --noises 1000 --size 32

Prints wall and processor times (medians, in alternation) and their ratios: ``compare`` with every pair, its control and
outcomes; the float64 inner products and absolute differences alone; and RP and MAE by one call a pair, as a loop over
the plain functions does it. Then the report's time and size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import combinations
from pathlib import Path

import torch
from generalization import seconds

from repro.banks import Bank
from repro.comparison import compare, derangement
from repro.descriptors.pixels import Pixels
from repro.metrics.functional import mae_score, reproducibility_score


def drawn(systems: int, noises: int, size: int) -> list[torch.Tensor]:
    """Smooth images with noise that grows from system to system."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(noises, 3, size // 4, size // 4, generator=generator)
    base = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic") * 60 + 128
    strength = torch.linspace(5, 80, systems)
    noisy = (base + amount * torch.randn(base.shape, generator=generator) for amount in strength)
    return [images.clamp(0, 255).to(torch.uint8) for images in noisy]


def bare(images: list[torch.Tensor], shuffle: torch.Tensor) -> None:
    """The arithmetic that no comparison can do without, in slices of 64 noises."""
    features = torch.stack([Pixels().features(each) for each in images], 1)
    pixels = torch.stack([each.flatten(1) for each in images], 1)
    for rows in torch.arange(len(shuffle)).split(64):
        own, flat = features[rows].double(), pixels[rows].float()
        for other in (rows, shuffle[rows]):
            own @ features[other].double().transpose(1, 2)
            torch.cdist(flat, pixels[other].float(), p=1.0)


def pair_by_pair(images: list[torch.Tensor], shuffle: torch.Tensor) -> None:
    """RP and MAE of every pair and its control through the plain functions."""
    features = [Pixels().features(each) for each in images]
    for i, j in combinations(range(len(images)), 2):
        for rows in (slice(None), shuffle):
            reproducibility_score(features[i], features[j][rows], 0.8)
            mae_score(images[i], images[j][rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=20)
    parser.add_argument("--noises", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    images = drawn(options.systems, options.noises, options.size)
    banks = [Bank.from_images(each) for each in images]
    shuffle = derangement(options.noises, 0)
    ways = {
        "compare": lambda: compare(banks, "Pixels"),
        "bare arithmetic": lambda: bare(images, shuffle),
        "pair by pair": lambda: pair_by_pair(images, shuffle),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, work in ways.items():
            times[name].append(seconds(work, "cpu"))
    print(f"{options.systems} systems x {options.noises:,} noises of 3 x {options.size} x {options.size}")
    for place, kind in enumerate(("wall", "processor")):
        found = {name: statistics.median(run[place] for run in runs) for name, runs in times.items()}
        shown = "  ".join(f"{name} {value:.2f} s" for name, value in found.items())
        ratios = [found["compare"] / found["bare arithmetic"], found["pair by pair"] / found["compare"]]
        print(f"{kind:9}  {shown}  compare / bare {ratios[0]:.2f}  pair by pair / compare {ratios[1]:.2f}")
    result = compare(banks, "Pixels")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        wall, _ = seconds(lambda: result.report(path), "cpu")
        print(f"report {wall:.1f} s, {path.stat().st_size / 1e6:.1f} MB (goal 15)")


if __name__ == "__main__":
    main()
