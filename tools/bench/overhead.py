#!/usr/bin/env python
"""Times a training step of the quickstart's MLP under the trainer and in loops by hand, alternating, as ratios.

    tools/bench/overhead.py [--steps 400] [--repeats 5] [--threads 1]

Three ways to the same step (noise, loss, backward, Adam, averaged weights; batches of 128 digits): a loop written by
hand in plain torch; this project's module and data in a bare loop; ``repro.Trainer`` as ``repro fit`` has it, with
its log, its checkpoints and its check of every gradient. Prints processor time a step, and ratios to the first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from repro.data import Digits
from repro.images import to_float
from repro.kernels import EDM
from repro.networks import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers import Heun
from repro.times import LogNormalTimes
from repro.training import Diffusion, Trainer

BATCH = 128


def module() -> Diffusion:
    torch.manual_seed(0)
    network = MLP(8, 1, width=128, depth=2)
    return Diffusion(
        network, EDM(), EDMPreconditioning(), Heun(18), LogNormalTimes(), lr=1e-3, optimizer_args={"fused": True}
    )


def by_hand(steps: int) -> float:
    network = module().trained.network
    average = [parameter.detach().clone() for parameter in network.parameters()]
    weights = list(network.parameters())
    images = to_float(Digits().images())
    optimizer = torch.optim.Adam(weights, lr=1e-3, fused=True)
    begin = time.process_time()
    for step in range(steps):
        if step * BATCH % len(images) < BATCH:
            order = torch.randperm(len(images))
        start = step * BATCH % (len(images) - BATCH)
        x_0 = images[order[start : start + BATCH]]
        sigma = (torch.randn(BATCH, 1, 1, 1) * 1.2 - 1.2).exp()
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        x_t = x_0 + sigma * torch.randn_like(x_0)
        out = network(x_t / (sigma**2 + 0.25).sqrt(), sigma.flatten().log() / 4, None)
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        loss = (weight * (c_skip * x_t + c_out * out - x_0) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1e-3)
    return (time.process_time() - begin) / steps


def bare(steps: int) -> float:
    trained, data = module(), Digits(batch_size=BATCH)
    optimizer = trained.configure_optimizers()
    begin = time.process_time()
    for images, _ in data.stream(steps):
        loss = trained.loss(trained.start_step(images), None).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        trained.images_seen += len(images)
        trained.update_average(len(images))
    return (time.process_time() - begin) / steps


def under_the_trainer(steps: int) -> float:
    taken = []
    for count in (steps // 4, steps // 4 + steps):  # what a training costs once cancels in the difference
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                max_steps=count, default_root_dir=Path(folder), accelerator="cpu", enable_model_summary=False
            )
            begin = time.process_time()
            trainer.fit(module(), datamodule=Digits(batch_size=BATCH))
            taken.append(time.process_time() - begin)
    return (taken[1] - taken[0]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways: dict[str, Callable[[int], float]] = {
        "by hand": by_hand, "module in a bare loop": bare, "repro.Trainer": under_the_trainer
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(20)
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(way(options.steps))
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, times["by hand"], strict=True))
        print(f"{name:24s} {1000 * min(own):7.2f} ms a step at best, {ratio:5.2f} of the loop by hand (median)")


if __name__ == "__main__":
    main()
