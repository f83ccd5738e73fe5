"""What the jobs of a plan cost in GPU-hours: counted floating-point operations over a stated throughput."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from repro.errors import UserError
from repro.noise import parse_seeds
from repro.records import flat
from repro.registry import build
from repro.studies.jobs import Job

__all__ = ["cost_of", "flops_of_network"]

Resolve = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_SHAPES = {"Digits": (1, 8), "MNIST": (1, 28), "CIFAR10": (3, 32), "CIFAR100": (3, 32)}
_BACKWARD = 2  # a backward pass costs two forward passes
_FURTHER = {  # forward passes a training image besides the student's own, of targets and teachers
    "Diffusion": 0,
    "FineTuning": 0,
    "ConsistencyTraining": 1,
    "ConsistencyDistillation": 3,
    "ProgressiveDistillation": 2,
}
_ADAPTIVE = 120  # evaluations of RK45 at its default tolerances, as seen on CIFAR-10


def cost_of(jobs: Iterable[Job], resolve: Resolve, gpu_tflops: float) -> str:
    """Tells the GPU-hours of trainings and drawings, in one line.

    A training costs three forward passes an image (one forward, one backward that costs two), and those of its teacher
    and target; drawing an image costs the sampler's evaluations, and from a released file what the study says. Other
    jobs cost what they are expected to take.

    Args:
        jobs: The jobs.
        resolve: Settings of a job -> the same with those of the configs that it starts from.
        gpu_tflops: Operations a GPU sustains, in 10^12 a second, above 0.

    Raises:
        UserError: a throughput that is not positive.
    """
    if not gpu_tflops > 0:
        raise UserError(f"--gpu_tflops is {gpu_tflops:g}; give a number above 0, for example 40")
    jobs = list(jobs)
    trainings = {str(job.settings["output"]): resolve(job.settings) for job in jobs if job.command == "fit"}
    counted, expected, others = 0.0, 0.0, 0
    for job in jobs:
        flops = job.size.flops
        if flops is None:
            flops = _training(job, trainings) if job.command == "fit" else _drawing(job, resolve, trainings)
        if flops is None:
            expected, others = expected + job.size.seconds * max(job.size.gpus, 1) / 3600, others + 1
        else:
            counted += flops
    hours = counted / (gpu_tflops * 1e12) / 3600
    rest = f", and about {expected:,.0f} more for {others} jobs whose operations are not counted" if others else ""
    time = f"{hours:,.0f}" if hours >= 1 else f"{hours:.2f}"
    return (
        f"cost: {time} GPU-hours for {counted:.3g} floating-point operations at {gpu_tflops:g} TFLOP/s "
        f"(--gpu_tflops){rest}"
    )


def flops_of_network(name: str, arguments: Mapping[str, Any], channels: int, size: int, num_classes: int) -> int:
    """Counts the floating-point operations of one forward pass of one image, on no device where that can be had.

    Example:
        >>> flops_of_network("MLP", {"width": 16, "depth": 1}, 1, 4, 0) > 2 * 16 * 16
        True
    """
    for device in ("meta", "cpu"):
        with torch.device(device), torch.no_grad(), suppress(NotImplementedError):
            network = build("networks", name, image_size=size, channels=channels, num_classes=num_classes, **arguments)
            labels = torch.zeros(1, dtype=torch.long) if num_classes else None
            with FlopCounterMode(display=False) as counter:
                network.eval()(torch.zeros(1, channels, size, size), torch.full((1,), 0.5), labels)
            return counter.get_total_flops()
    raise NotImplementedError(f"{name} cannot be counted")


def _forward(settings: Mapping[str, Any], trainings: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Operations of a forward pass of the network that a training has, or takes over from its teacher or start."""
    keys = flat(settings, "")
    source = keys.get(".model.teacher") or keys.get(".model.start")
    name = keys.get(".model.network")
    if name is None:
        return _forward(trainings[str(source)], trainings) if str(source) in trainings else None
    data = keys.get(".data")
    if data not in _SHAPES:
        return None
    channels, size = _SHAPES[data]
    start = ".model.network."
    arguments = {key.removeprefix(start): value for key, value in keys.items() if key.startswith(start)}
    options = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in arguments.items())
    classes = 10 if "_cond" in str(settings.get("config", "")) else 0
    return _counted(name, options, channels, keys.get(".data.resize") or size, classes)


@functools.cache
def _counted(name: str, arguments: tuple[tuple[str, Any], ...], channels: int, size: int, num_classes: int) -> int:
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments}
    return flops_of_network(name, plain, channels, size, num_classes)


def _training(job: Job, trainings: Mapping[str, Mapping[str, Any]]) -> float | None:
    settings = trainings[str(job.settings["output"])]
    keys = flat(settings, "")
    further, forward = _FURTHER.get(keys.get(".model", "")), _forward(settings, trainings)
    if further is None or forward is None:
        return None
    images = keys[".trainer.max_steps"] * keys.get(".data.batch_size", 128)
    return float(forward * (1 + _BACKWARD + further) * images)


def _drawing(job: Job, resolve: Resolve, trainings: Mapping[str, Mapping[str, Any]]) -> float | None:
    source = trainings.get(str(job.settings.get("ckpt_path")))
    forward = None if source is None else _forward(source, trainings)
    if source is None or forward is None:
        return None
    keys = flat(source, "")
    own = flat(job.settings, "")
    start = ".sampler" if ".sampler" in own else ".model.sampler"
    evaluations = _evaluations(own if start == ".sampler" else keys, start, keys.get(".model.end_steps", 1))
    return float(forward * evaluations * len(parse_seeds(job.settings["seeds"])))


def _evaluations(keys: Mapping[str, Any], start: str, otherwise: int) -> int:
    """How often a sampler evaluates the network for one image."""
    name, steps = keys.get(start), keys.get(f"{start}.steps", 18)
    if name is None:
        return otherwise
    return _ADAPTIVE if name == "RK45" else 2 * steps - 1 if name == "Heun" else steps
