"""The empirical optimum against its two bare matrix products: time and memory, in one run.

    python tools/bench/empirical_optimum.py --queries 64 --images 50000 --ratio 0.5 --threads 1

The goal is stated in products in float32. Those in the precision of the optimum stand beside them: where all images
matter (high ratios), the optimum cannot be faster than these. Prints wall and processor times (medians, in
alternation), their ratios, and the largest memory above the inputs. On a machine that others use too, take
``--threads 1`` and look at the processor time.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from generalization import PeakMemory, seconds

from repro.denoisers import EmpiricalDenoiser
from repro.images import to_float
from repro.kernels import EDM


def _products(denoiser: EmpiricalDenoiser, x_t: torch.Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """The two bare products in a precision: queries with all images, weights with all images."""
    points, flat = denoiser.points.to(dtype), x_t.flatten(1).to(dtype)
    weights, mean = torch.empty(len(flat), len(points)).to(flat), torch.empty_like(flat)
    return lambda: torch.mm(torch.mm(flat, points.T, out=weights), points, out=mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--shape", type=int, nargs=3, default=(3, 32, 32))
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--chunk", type=int, default=None)
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, *options.shape), generator=generator, dtype=torch.uint8)
    dtype = getattr(torch, options.precision)
    x_t = to_float(images[: options.queries]) + options.ratio * torch.randn(
        options.queries, *options.shape, generator=generator, dtype=dtype
    )
    images, x_t, t = images.to(options.device), x_t.to(options.device), torch.tensor(options.ratio, dtype=torch.float64)
    with torch.no_grad(), PeakMemory(options.device) as memory:
        denoiser = EmpiricalDenoiser(images, EDM(), chunk=options.chunk, precision=options.precision)
        denoiser.denoise(x_t, t)

    products = [_products(denoiser, x_t, torch.float32), _products(denoiser, x_t, dtype)]
    runs: list[list[tuple[float, float]]] = [[], [], []]
    for _ in range(options.repeats):
        for times, work in zip(runs, [*products, lambda: denoiser.denoise(x_t, t)], strict=True):
            times.append(seconds(work, options.device))
    print(f"{options.queries:,} queries x {options.images:,} images x {x_t[0].numel():,}, ratio {options.ratio:g}")
    print(f"{options.precision}, on {options.device}, {torch.get_num_threads()} threads")
    for place, kind in enumerate(("wall", "processor")):
        single, own, whole = (statistics.median(times[place] for times in each) for each in runs)
        ratio, of_own = (
            statistics.median(b[place] / a[place] for a, b in zip(each, runs[2], strict=True)) for each in runs[:2]
        )
        print(
            f"{kind:9}  two products {single:7.3f} s, in {options.precision} {own:7.3f} s  empirical optimum "
            f"{whole:7.3f} s  ratio {ratio:.3f} (goal 1.2), to those in {options.precision} {of_own:.3f}"
        )
    as_floats = denoiser.points.nbytes / 2**20
    print(f"memory above the images {memory.bytes / 2**20:.0f} MiB (all images as floats: {as_floats:.0f})")


if __name__ == "__main__":
    main()
