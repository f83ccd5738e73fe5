#!/usr/bin/env python
"""Times one training step of the EDM U-Net in several modes, alternating, as ratios to plain float32.

    tools/bench/training.py [--width 32] [--size 32] [--batch 32] [--threads 2] [--repeats 5] [--device cpu] [--compile]

A step is: noise, loss, backward, Adam, averaged weights. Prints images a second and the median of paired ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from repro.kernels import EDM
from repro.networks.song_unet import SongUNet
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes
from repro.training.diffusion import Diffusion
from repro.training.optimization import update_average


def step_of(options: argparse.Namespace, half: bool, channels_last: bool, compiled: bool) -> Callable[[], None]:
    torch.manual_seed(0)
    network = SongUNet(options.size, 3, 0, width=options.width)
    model = Diffusion(
        network,
        EDM(),
        EDMPreconditioning(),
        Heun(18),
        LogNormalTimes(),
        optimizer_args={"fused": True},
        channels_last=channels_last,
        compile=compiled,
    ).to(options.device)
    optimizer = model.configure_optimizers()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.rand(options.batch, 3, options.size, options.size, device=options.device) * 2 - 1
    images = images.contiguous(memory_format=layout)

    def step() -> None:
        t = model.times.draw(len(images), model.denoiser.kernel, images.device)
        with torch.autocast(options.device, torch.bfloat16, enabled=half):
            loss = model.loss_at(model.denoiser, images, torch.randn_like(images), t, None).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update_average(model.average, model.denoiser, 0.999)
        if options.device != "cpu":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("width", 32), ("size", 32), ("batch", 32), ("threads", 2), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also the compiled modes (minutes to compile)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    modes = {"float32": (False, False, False), "bfloat16": (True, False, False), "bf16, last": (True, True, False)}
    if options.compile:
        modes |= {
            "compiled": (False, False, True),
            "bf16, compiled": (True, False, True),
            "all three": (True, True, True),
        }
    steps = {name: step_of(options, *mode) for name, mode in modes.items()}
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(options.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    plain = seconds["float32"]
    print(f"SongUNet width {options.width}, {options.size}x{options.size}, batch {options.batch}, {options.device}")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(plain, taken, strict=True))
        print(f"{name:>15}  {options.batch / statistics.median(taken):8.1f} images/s  {ratio:5.2f} x float32")


if __name__ == "__main__":
    main()
