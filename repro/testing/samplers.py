"""Laws of samplers, measured on Gaussian data, where the right answer is known."""

from __future__ import annotations

import contextlib
import copy
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from repro.denoisers import Denoiser, GaussianDenoiser, NetworkDenoiser
from repro.kernels import Kernel
from repro.networks.mlp import MLP
from repro.noise import NoiseStream
from repro.parameterizations import Eps
from repro.samplers.base import Sampler
from repro.testing.devices import WAITS_OF_STEPS, FakeDevice, Waits

__all__ = ["CountedDenoiser", "GaussianConsistency", "check_device", "check_sampler", "gaussian_error"]

_SHAPE = (1, 3, 5)
_REHEARSED = 4


class CountedDenoiser(Denoiser):
    """A denoiser that counts its calls and keeps what it was asked.

    Args:
        denoiser: The denoiser that answers.

    Attributes:
        calls: Number of calls so far.
        times: Time of each call; the latest of an image where each has its own.
        labels: Labels of the first call.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.kernel = denoiser, denoiser.kernel
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes
        self.times: list[float] = []
        self.labels: Tensor | None = None

    @property
    def calls(self) -> int:
        """Number of calls so far."""
        return len(self.times)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Checks that the answer of the counted denoiser."""
        self.times.append(t.max().item())
        self.labels = labels if self.labels is None else self.labels
        return self.denoiser.denoise(x_t, t, labels)


class GaussianConsistency(GaussianDenoiser):
    r"""The consistency function of Gaussian data: the end at ``t_min`` of the probability flow through ``x_t``.

    It is unscaled, :math:`x_{t_{min}} / \alpha_{t_{min}}`, as consistency models answer. Arguments are those of
    :class:`~repro.denoisers.GaussianDenoiser`.
    """

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Checks that the image that the flow reaches."""
        end = torch.tensor(self.kernel.t_min, dtype=torch.float64)
        return self.transport(x_t, t, end) / self.scales(x_t, end)[0]


def _gaussian(sampler: Sampler, kernel: Kernel, mean: float = 0.0, std: float = 0.5) -> GaussianDenoiser:
    """The closed form of Gaussian data that the sampler is for."""
    return (GaussianConsistency if sampler.consistency else GaussianDenoiser)(kernel, _SHAPE, mean, std)


def gaussian_error(sampler: Sampler, kernel: Kernel, t_end: float | None = None) -> float:
    """Root mean square error of a deterministic sampler on Gaussian data with mean 0.3 and standard deviation 0.5.

    Args:
        sampler: The sampler.
        kernel: The kernel.
        t_end: Time at which its images stand; None for clean images.
    """
    denoiser = _gaussian(sampler, kernel, mean=0.3, std=0.5)
    start = NoiseStream(range(8)).draw(_SHAPE).double() * kernel.prior_scale
    times = torch.tensor([kernel.t_max, t_end or 1.0], dtype=torch.float64)
    if t_end is not None:
        right = denoiser.transport(start, times[0], times[1])
    else:
        alpha, sigma = kernel.alpha(times[0]), kernel.sigma(times[0])
        right = 0.3 + 0.5 * (start - alpha * 0.3) / ((0.5 * alpha) ** 2 + sigma**2).sqrt()
    return (sampler.sample(denoiser, NoiseStream(range(8))) - right).square().mean().sqrt().item()


def check_sampler(sampler: Sampler, kernel: Kernel, tolerance: float = 0.05, batch_tolerance: float = 0.0) -> None:
    """Checks a sampler, as it is configured, under a kernel.

    Deterministic ones carry each noise to where the probability-flow equation does, those of consistency models with
    its closed-form solution in the denoiser's place; stochastic ones give images of
    the right mean and spread; images are float64 and depend on their seed only; evaluations are counted rightly;
    labels reach the denoiser; whoever walks the trajectory can steer it; as :func:`check_device`, which an adaptive
    sampler of another package runs by itself.

    Args:
        sampler: The sampler; it should end at clean images or close to them.
        kernel: The kernel.
        tolerance: Root mean square error allowed for data with a standard deviation of 0.5, or the error allowed for
            its mean and standard deviation; it stands for the sampler's own error at its number of steps.
        batch_tolerance: How far batch mates may move an image; 0 demands the same bits.

    Raises:
        AssertionError: a law is broken; the message names it.
    """
    name = f"{type(sampler).__name__} under {type(kernel).__name__}"
    if not sampler.stochastic:
        error = gaussian_error(sampler, kernel)
        assert error < tolerance, f"{name}: error {error:.1e} on Gaussian data, allowed {tolerance:.1e}"
    else:
        images = sampler.sample(_gaussian(sampler, kernel, 0.3, 0.5), NoiseStream(range(200)))
        for what, value, right in (("mean", images.mean().item(), 0.3), ("spread", images.std().item(), 0.5)):
            assert abs(value - right) < tolerance, f"{name}: {what} {value:.3f} on Gaussian data, right is {right}"
    images = _check_batches(name, sampler, kernel, batch_tolerance)
    _check_calls(name, sampler, kernel, images)
    _check_trajectory(name, sampler, kernel, images)
    if not sampler.adaptive or type(sampler).__name__ in WAITS_OF_STEPS:
        check_device(sampler, kernel)


def check_device(sampler: Sampler, kernel: Kernel, device: Literal["cuda", "meta"] = "cuda") -> None:
    """Checks the first steps on an accelerator, without one: all tensors are there, and the host never waits for it.

    Adaptive samplers wait as often as :data:`~repro.testing.devices.WAITS_OF_STEPS` says, in every step.

    Args:
        sampler: The sampler.
        kernel: The kernel; it is not changed.
        device: ``cuda`` is faked; ``meta`` is for samplers that take gradients.

    Raises:
        AssertionError: a tensor was left on the CPU, or the host waited.
    """
    name = f"{type(sampler).__name__} under {type(kernel).__name__}"
    allowed = WAITS_OF_STEPS[type(sampler).__name__] if sampler.adaptive else 0
    with FakeDevice() if device == "cuda" else contextlib.nullcontext(), torch.no_grad():
        network = MLP(4, 1, num_classes=3, width=8, depth=1).to(device)
        denoiser = NetworkDenoiser(network, copy.deepcopy(kernel), Eps())
        walk = sampler.trajectory(denoiser, NoiseStream(range(2)), torch.tensor([0, 2]))
        for number in range(_REHEARSED):
            with Waits() as waits:
                step = next(walk, None)
            if step is None:
                break
            where = step.x_s.device.type
            assert where == device, f"{name}: the images after step {number} are on {where}"
            counted = dict(waits.counted)
            assert sum(counted.values()) == allowed, (
                f"{name}: in step {number} the host waits for the device, {allowed} times are stated: {counted}"
            )


def _check_batches(name: str, sampler: Sampler, kernel: Kernel, tolerance: float) -> Tensor:
    denoiser, seeds = _gaussian(sampler, kernel), list(range(8))
    together = sampler.sample(denoiser, NoiseStream(seeds))
    assert together.dtype == torch.float64, f"{name}: images are {together.dtype}, not float64"
    assert together.shape == (8, *_SHAPE), f"{name}: images have shape {tuple(together.shape)}"
    parts = torch.cat([sampler.sample(denoiser, NoiseStream(part)) for part in (seeds[:1], seeds[1:])])
    error = (parts - together).abs().max().item()
    assert error <= tolerance, f"{name}: batch mates move an image by {error:.1e}, allowed {tolerance:.1e}"
    return together


def _check_calls(name: str, sampler: Sampler, kernel: Kernel, images: Tensor) -> None:
    denoiser, labels = CountedDenoiser(_gaussian(sampler, kernel)), torch.arange(8) % 3
    again = sampler.sample(denoiser, NoiseStream(range(8)), labels)
    assert torch.equal(again, images), f"{name}: the same seeds give other images the second time"
    assert denoiser.calls == sampler.evaluations, f"{name}: {sampler.evaluations} evaluations, {denoiser.calls} calls"
    assert denoiser.labels is not None, f"{name}: labels do not reach the denoiser"
    assert torch.equal(denoiser.labels, labels), f"{name}: other labels reach the denoiser"


def _check_trajectory(name: str, sampler: Sampler, kernel: Kernel, images: Tensor) -> None:
    denoiser = _gaussian(sampler, kernel)
    steps = list(sampler.trajectory(denoiser, NoiseStream(range(8))))
    assert torch.equal(steps[-1].x_s, images), f"{name}: the trajectory does not end at the images"
    times = torch.stack([step.t.expand(8) for step in steps])
    assert bool((times.diff(dim=0) <= 0).all()), f"{name}: times do not fall"
    for before, after in pairwise(steps):
        assert torch.equal(before.x_s, after.x_t), f"{name}: a step does not start where the one before ended"
    steered = sampler.trajectory(denoiser, NoiseStream(range(8)))
    first = next(steered)
    first.x_s = first.x_s + 0.5
    second = next(steered, None)
    assert second is None or torch.equal(second.x_t, first.x_s), f"{name}: a changed state is not taken up"
