"""Consistency models: a network that jumps from any point of the probability flow to its end, learnt in two ways."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from repro.denoisers import Denoiser, NetworkDenoiser
from repro.devices import onto
from repro.errors import UserError, check_choice
from repro.images import to_float
from repro.kernels import EDM, Kernel
from repro.models.denoising import DenoisingModel, consistency_boundary, not_a_jump
from repro.networks import Network
from repro.parameterizations import ConsistencyPreconditioning, EDMPreconditioning
from repro.records import complete_record
from repro.samplers.base import Sampler
from repro.samplers.consistency import Consistency
from repro.samplers.steps import COORDINATES, noise_in
from repro.training.base import LossModule, Part
from repro.training.consistency_losses import Distance, Weighting, distance, weight
from repro.training.consistency_schedule import ConsistencySchedule
from repro.training.diffusion import model_of
from repro.training.optimization import Average, Optimization, update_average
from repro.training.source import Source, taken_over
from repro.training.teacher import Teaching

__all__ = ["ConsistencyDistillation", "ConsistencyModule", "ConsistencyTraining", "Solver", "flow_step"]

Solver = Literal["heun", "euler"]


def flow_step(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, labels: Tensor | None = None, solver: Solver = "heun"
) -> Tensor:
    """One step along the probability flow, in the coordinate of the ratio, from one time to another for each image.

    Args:
        denoiser: The denoiser whose flow it is.
        x_t: States, shape (B, C, H, W).
        t: Their times, shape (B,).
        s: The times after the step, shape (B,).
        labels: Class numbers (B,), or None.
        solver: ``heun`` (two evaluations, second order) or ``euler``.

    Raises:
        UserError: unknown solver.
    """
    check_choice("solver", solver, Solver)
    along, kernel = COORDINATES["ratio"], denoiser.kernel
    at_t, at_s = (time.to(x_t.device)[:, None, None, None] for time in (t, s))
    slope = noise_in(kernel, x_t, denoiser.denoise(x_t, t, labels), at_t)
    x_s = along.advance(kernel, x_t, slope, at_t, at_s)
    if solver == "heun":
        slope_s = noise_in(kernel, x_s, denoiser.denoise(x_s.to(x_t.dtype), s, labels), at_s)
        x_s = along.advance(kernel, x_t, (slope + slope_s) / 2, at_t, at_s)
    return x_s.to(x_t.dtype)


class ConsistencyModule(LossModule):
    r"""Base of the modules that train a consistency function; one of them defines :meth:`step_back`.

    .. math:: L = E_{x_0, i, \epsilon}\; w(r_{t_i})\, d\big( f(x_{t_i}, t_i),\; f^-(\hat x_{t_{i+1}}, t_{i+1}) \big)

    on N times that fall from the kernel's ``t_max`` to its ``t_min``, evenly in :math:`r^{1/\rho}`. The target
    :math:`f^-` is a moving average of the trained f; where f drops activations or labels, :math:`f^-` drops the same.
    Images are drawn with another, slower average, the ``average`` of every trained module.

    Args:
        trained: The network under its kernel and :class:`~repro.parameterizations.ConsistencyPreconditioning`.
        sampler: How images are drawn.
        schedule: The noise levels, and how slowly the target follows.
        distance: d: ``l2`` (squared), ``l1`` or ``pseudo_huber``.
        weighting: w, as a function of :math:`s = r^{-2}`: ``uniform``, ``snr`` (s), ``snr_plus_one``, ``karras``
            (:math:`s + \sigma_d^{-2}`) or ``truncated_snr`` (:math:`\max(s, 1)`).
        compile: Whether the networks are compiled.
        optimization: How the weights are moved.
        average: How they are averaged.
        channels_last: Whether images and convolution weights are channels-last in memory.
        seed: Seed of every random draw in training.
        parts: What else has a say, such as a teacher.

    Attributes:
        target: The target network, in training mode when the trained one is.
        steps: Optimiser steps so far.

    Raises:
        UserError: a value outside its range, or a sampler of other models.
    """

    trained: NetworkDenoiser
    target: NetworkDenoiser
    model: DenoisingModel

    def __init__(
        self,
        trained: NetworkDenoiser,
        sampler: Sampler,
        schedule: ConsistencySchedule,
        distance: Distance,
        weighting: Weighting,
        compile: bool,
        optimization: Optimization,
        average: Average,
        channels_last: bool,
        seed: int,
        parts: Sequence[Part] = (),
    ) -> None:
        check_choice("distance", distance, Distance)
        check_choice("weighting", weighting, Weighting)
        if not sampler.consistency:
            raise not_a_jump(sampler)
        meaning = trained.parameterization
        assert isinstance(meaning, ConsistencyPreconditioning), "consistency_boundary makes no other"
        model = model_of(trained, sampler, compile=compile)
        super().__init__(model, trained, optimization, average, channels_last, seed, parts)
        self.schedule, self.distance, self.weighting, self.steps = schedule, distance, weighting, 0
        self.sigma_data = meaning.sigma_data
        self.target = copy.deepcopy(self.average).train()
        if compile:
            self.target.network.compile()

    @abstractmethod
    def step_back(self, x_t: Tensor, t: Tensor, s: Tensor, x_0: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the point at time s < t on the path through ``x_t``, which was made of ``x_0`` and ``eps``."""

    @property
    def levels_now(self) -> int:
        """The number N of noise levels at this step."""
        return self.schedule.levels_at(self.steps)

    @property
    def target_decay_now(self) -> float:
        """Part of the target that stays in this step."""
        return self.schedule.decay_at(self.steps)

    def pairs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbouring times t > s by their number, 0 (the noisiest) to N - 2; float64 of the index's shape."""
        times = onto(index.device, self.schedule.times(self.trained.kernel, self.levels_now))
        return times[index], times[index + 1]

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the training loss of each image at a fresh pair of times and a fresh noise, shape (B,)."""
        if self.logs_now:
            self.log_dict({"train/levels": float(self.levels_now), "train/target_decay": self.target_decay_now})
        t, s = self.pairs(torch.randint(self.levels_now - 1, (len(x_0),), device=x_0.device))
        return self.loss_at(self.trained, self.target, x_0, torch.randn_like(x_0), t, s, labels)

    def loss_at(
        self,
        student: NetworkDenoiser,
        target: NetworkDenoiser,
        x_0: Tensor,
        eps: Tensor,
        t: Tensor,
        s: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Loss of each image between given functions, noises and times t > s of shape (B,); shape (B,)."""
        alpha, sigma = student.scales(x_0, t)
        x_t = alpha * x_0 + sigma * eps
        devices = [x_0.device] if x_0.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            aim = target.denoise(self.step_back(x_t, t, s, x_0, eps, labels), s, labels)
        apart = distance(student.denoise(x_t, t, labels), aim, self.distance)
        ratio = (sigma / alpha).flatten()
        return apart * weight(ratio, self.weighting, self.sigma_data)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Says how consistent the averaged weights are on held-out images, at fixed noises and evenly spread times."""
        images, labels = batch
        x_0 = to_float(images)
        eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(batch_idx)).to(x_0)
        t, s = self.pairs(torch.arange(len(x_0), device=x_0.device) * (self.levels_now - 1) // len(x_0))
        classes = labels if self.num_classes else None
        loss = self.loss_at(self.average, self.average, x_0, eps, t, s, classes).mean()
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(images))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then moves the averages."""
        decay = self.target_decay_now
        super().optimizer_step(*args, **kwargs)
        update_average(self.target, self.trained, decay)
        self.steps += 1

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Restores the progress of a training, and with it the number of noise levels."""
        super().take_progress(progress)
        self.steps = progress["global_step"]


class ConsistencyDistillation(ConsistencyModule):
    r"""A consistency function of the probability flow of a teacher, by one step of a solver along that flow.

    .. math:: \hat x_s = \mathrm{Solver}(x_t, t, s;\; \mathrm{teacher})

    Args:
        teacher: What is distilled: a denoiser, or the path of a checkpoint or a run.
        network: The student's network; by default the teacher's, from its averaged weights, which must have been
            trained under EDM's preconditioning, so that they are a good start.
        kernel: The student's kernel; by default the teacher's.
        sampler: How images are drawn from the student; by default in one step.
        sigma_data: Standard deviation of the data; by default the teacher's, or 0.5.
        condition_scale: Factor of the noise level that the network sees; by default the teacher's, or 1/4.
        solver: ``heun`` or ``euler``.
        levels: Number N of noise levels; of a rising number the first.
        last_levels: N rises to this and one more over ``schedule_steps``; null for a fixed number.
        schedule_steps: Optimiser steps over which N rises.
        target_decay: Part of the target network that stays in a step, in [0, 1); 0 makes it a copy of the student.
        adaptive_decay: Whether the target follows more slowly the larger N is.
        distance: d: ``l2`` (squared), ``l1`` or ``pseudo_huber``.
        weighting: w, as a function of :math:`s = r^{-2}`: ``uniform``, ``snr`` (s), ``snr_plus_one``, ``karras``
            (:math:`s + \sigma_d^{-2}`) or ``truncated_snr`` (:math:`\max(s, 1)`).
        rho: Power of the spacing of the times.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Raises:
        UserError: an unknown solver, no teacher there, or settings that do not fit it.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 2.
    """

    takes_over_from: ClassVar[str | None] = "teacher"

    def __init__(
        self,
        teacher: Denoiser | str,
        network: Network | None = None,
        kernel: Kernel | None = None,
        sampler: Sampler | None = None,
        sigma_data: float | None = None,
        condition_scale: float | None = None,
        solver: Solver = "heun",
        levels: int = 18,
        last_levels: int | None = None,
        schedule_steps: int = 800_000,
        target_decay: float = 0.95,
        adaptive_decay: bool = False,
        distance: Distance = "l2",
        weighting: Weighting = "uniform",
        rho: float = 7.0,
        compile: bool = False,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        check_choice("solver", solver, Solver)
        schedule = ConsistencySchedule(levels, last_levels, schedule_steps, target_decay, adaptive_decay, rho)
        source, sampler = Source(teacher, "teacher"), sampler or Consistency()
        if network is None:
            meant = _meaning_to_start_from(source)
            sigma_data = meant.sigma_data if sigma_data is None else sigma_data
            condition_scale = meant.condition_scale if condition_scale is None else condition_scale
        kernel = kernel or source.denoiser.kernel
        meaning = consistency_boundary(kernel, sigma_data, condition_scale)
        complete_record(self, sampler=sampler, sigma_data=meaning.sigma_data, condition_scale=meaning.condition_scale)
        teaching = Teaching(source, compile)
        super().__init__(
            taken_over(source, self, network, kernel, meaning),
            sampler,
            schedule,
            distance,
            weighting,
            compile,
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
            parts=[teaching],
        )
        self.teaching, self.solver = teaching, solver
        if network is None:
            self.teaching.check(self)

    def step_back(self, x_t: Tensor, t: Tensor, s: Tensor, x_0: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Takes one step of the solver along the teacher's flow."""
        return flow_step(self.teaching.of(self), x_t, t, s, labels, self.solver)


class ConsistencyTraining(ConsistencyModule):
    r"""A consistency function learnt from data alone: the flow's next point is guessed with the clean image itself.

    .. math:: \hat x_s = \alpha_s x_0 + \sigma_s \epsilon

    Args:
        network: The network.
        kernel: The perturbation kernel; EDM by default.
        sampler: How images are drawn; by default in one step.
        sigma_data: Standard deviation of the data.
        condition_scale: Factor of the noise level that the network sees.
        levels: :math:`s_0`, the first number of noise levels.
        last_levels: :math:`s_1`; null for a fixed number.
        schedule_steps: Optimiser steps over which their number rises.
        target_decay: :math:`\mu_0`, the part of the target network that stays in a step.
        adaptive_decay: Whether the target follows more slowly the more levels there are.
        distance: d: ``l2`` (squared), ``l1`` or ``pseudo_huber``.
        weighting: w, as a function of :math:`s = r^{-2}`: ``uniform``, ``snr`` (s), ``snr_plus_one``, ``karras``
            (:math:`s + \sigma_d^{-2}`) or ``truncated_snr`` (:math:`\max(s, 1)`).
        rho: Power of the spacing of the times.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Raises:
        UserError: a value outside its range, or a sampler of other models.

    Source: Song et al. 2023, arXiv:2303.01469, algorithm 3.
    """

    def __init__(
        self,
        network: Network,
        kernel: Kernel | None = None,
        sampler: Sampler | None = None,
        sigma_data: float = 0.5,
        condition_scale: float = 0.25,
        levels: int = 2,
        last_levels: int | None = 150,
        schedule_steps: int = 800_000,
        target_decay: float = 0.9,
        adaptive_decay: bool = True,
        distance: Distance = "l2",
        weighting: Weighting = "uniform",
        rho: float = 7.0,
        compile: bool = False,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        kernel, sampler = kernel or EDM(), sampler or Consistency()
        complete_record(self, kernel=kernel, sampler=sampler)
        super().__init__(
            NetworkDenoiser(network, kernel, consistency_boundary(kernel, sigma_data, condition_scale)),
            sampler,
            ConsistencySchedule(levels, last_levels, schedule_steps, target_decay, adaptive_decay, rho),
            distance,
            weighting,
            compile,
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
        )

    def step_back(self, x_t: Tensor, t: Tensor, s: Tensor, x_0: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the same image under less of the same noise."""
        alpha, sigma = self.trained.scales(x_0, s)
        return alpha * x_0 + sigma * eps


def _meaning_to_start_from(source: Source) -> EDMPreconditioning:
    """The teacher's parameterisation, where its weights are a good start for a consistency function."""
    meaning = source.with_network("network").parameterization
    if not isinstance(meaning, EDMPreconditioning):
        raise UserError(
            f"the teacher's network was trained under {type(meaning).__name__}, a consistency model starts from "
            "EDMPreconditioning; name a network that starts afresh: --model.network NAME, or another teacher"
        )
    return meaning
