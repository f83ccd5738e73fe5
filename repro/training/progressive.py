"""Progressive distillation: a student does in one DDIM step what its teacher does in two, and becomes the teacher."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from repro.denoisers import Denoiser, NetworkDenoiser
from repro.devices import onto
from repro.errors import UserError, check_choice
from repro.images import to_float
from repro.kernels import Kernel
from repro.models.denoising import DenoisingModel
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.records import complete_record
from repro.samplers.steps import Spacing
from repro.training.base import LossModule
from repro.training.diffusion import model_of
from repro.training.halving import Halving, Levels, two_step_target
from repro.training.optimization import Average, Optimization, update_average
from repro.training.source import Source, taken_over
from repro.training.teacher import Teaching

__all__ = ["ProgressiveDistillation", "Weighting"]

Weighting = Literal["truncated_snr", "snr_plus_one", "parameterization"]


class ProgressiveDistillation(LossModule):
    r"""Students with half the steps of their teachers, one after the other in one run, down to the wanted number.

    The student of stage k = 0, 1, ... draws with ``start_steps`` :math:`/ 2^k` DDIM steps, the last one with
    ``end_steps``. It learns, on the noise levels of its own sampler, to do in one step what its teacher does in two:

    .. math:: L = E_{x_0, i, \epsilon}\; w(t_i)\, \| \hat x_0(x_t, t_i) - \tilde x_0 \|^2 / d

    with the target of :func:`~repro.training.halving.two_step_target`. The teacher of the first stage is ``teacher``,
    under :math:`2 \cdot` ``start_steps`` steps. At the end of a stage the student's average becomes the next teacher
    and the next student's start: it is what the student is judged by and steadier than its last step. The average and
    the optimiser's moments then start anew. Which stage it is follows from the images seen alone. A checkpoint draws
    with the steps of the stage it was written in, a finished one with ``end_steps``.

    What is left out (None) is the teacher's, and stands in the record with what it was, so a student's checkpoint is
    rebuilt without the teacher.

    Args:
        teacher: What is distilled: a denoiser, or the path of a checkpoint or a run.
        start_steps: DDIM steps of the first student, half of its teacher's.
        end_steps: DDIM steps of the last student: ``start_steps`` halved any number of times, also none.
        stage_images: Training images of each stage; the last one goes on to the end of the run.
        network: The student's network; by default the teacher's, from its averaged weights.
        kernel: The student's kernel; by default the teacher's.
        parameterization: What the student's output means; by default as the teacher's. ``X0`` and ``V`` stay well
            posed down to one step; but a copied network starts off its mark under another than the teacher's, so the
            first stage must then be long.
        weighting: w as a factor of the squared error of :math:`\hat x_0`: ``truncated_snr`` is :math:`\max(s, 1)`,
            ``snr_plus_one`` is :math:`s + 1` (which is the plain error of v under kernels that keep the variance), with
            :math:`s = \alpha_t^2 / \sigma_t^2`; ``parameterization`` weighs the network's output as in training
            from scratch.
        spacing: In which function of time the first teacher's noise levels are evenly spaced, and with them all
            students': by default ``time_uniform``, as published, or ``edm`` where time runs beyond 1 (kernel ``EDM``).
        t_end: Smallest time of the first teacher's levels; by default ``time_uniform`` steps are equally long down to
            time 0, and the others end at the kernel's ``t_min``.
        final_denoise: Whether the last step leads to the clean image.
        lr_decay: Whether the learning rate falls linearly to 0 in every stage.
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images of the stage; null
            for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Raises:
        UserError: ``end_steps`` that halving does not reach, fewer images than the stages need, an unknown weighting,
            no teacher there, or settings that do not fit it.

    Source: Salimans & Ho 2022, arXiv:2202.00512, algorithm 2, section 4 and appendix G.
    """

    takes_over_from: ClassVar[str | None] = "teacher"
    trained: NetworkDenoiser
    model: DenoisingModel

    def __init__(
        self,
        teacher: Denoiser | str,
        start_steps: int,
        end_steps: int,
        stage_images: int,
        network: Network | None = None,
        kernel: Kernel | None = None,
        parameterization: Parameterization | None = None,
        weighting: Weighting = "truncated_snr",
        spacing: Spacing | None = None,
        t_end: float | None = None,
        final_denoise: bool = True,
        lr_decay: bool = True,
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
        check_choice("weighting", weighting, Weighting)
        if stage_images < 1:
            raise UserError(f"stage_images is {stage_images}; give the training images of each stage, at least 1")
        halving = Halving(start_steps, end_steps, spacing, t_end, final_denoise)
        source = Source(teacher, "teacher")
        teaching = Teaching(source, compile)
        trained = taken_over(source, self, network, kernel, parameterization)
        super().__init__(
            model_of(trained, halving.sampler(0, trained.kernel), compile=compile),
            trained,
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
            parts=[teaching],
        )
        self.teaching = teaching
        if network is None:
            self.teaching.check(self)
        self.halving, self.stage_images = halving, stage_images
        self.weighting, self.lr_decay = weighting, lr_decay
        self.predecessor = copy.deepcopy(self.average)
        if compile:
            self.predecessor.network.compile()
        self._images_of_run = math.inf
        self._enter_stage()

    @property
    def stage(self) -> int:
        """The stage that the images seen have reached, counted from 0."""
        return min(self.images_seen // self.stage_images, self.halving.stages - 1)

    @property
    def stage_teacher(self) -> Denoiser:
        """What the student of the current stage learns from: ``teacher``, then the student of the stage before."""
        return self.teaching.of(self) if self._entered == 0 else self.predecessor

    def _enter_stage(self) -> None:
        """Takes the noise levels of the stage; the teacher's levels between them are the student's steps' middles."""
        kernel, self._entered = self.trained.kernel, self.stage
        self.model.sampler = self.sampler = self.halving.sampler(self._entered, kernel)
        complete_record(self.model, sampler=self.sampler)
        self._levels = Levels.of(self.sampler, kernel)
        self._middles = Levels.of(self.halving.sampler(self._entered - 1, kernel), kernel).times[1::2]

    def train(self, mode: bool = True) -> ProgressiveDistillation:
        """Puts the trained weights in training mode; those of average and predecessor stay in evaluation mode."""
        super().train(mode)
        self.predecessor.eval()
        return self

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Training loss of each image at a fresh noise level of the student and a fresh noise, shape (B,)."""
        level = torch.randint(self.sampler.steps, (len(x_0),), device=x_0.device)
        return self.loss_at(self.trained, x_0, torch.randn_like(x_0), level, labels)

    def loss_at(
        self, student: NetworkDenoiser, x_0: Tensor, eps: Tensor, level: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Computes the training loss of each image under given noises and noise levels, shape (B,).

        Args:
            student: The denoiser that is judged.
            x_0: Images in [-1, 1], shape (B, C, H, W).
            eps: Noises, of the same shape.
            level: Numbers of the student's noise levels, from 0 (noise) up to its steps less 1, shape (B,).
            labels: Class numbers (B,), or None.
        """
        if self._levels.times.device != x_0.device:
            self._levels, self._middles = self._levels.to(x_0.device), onto(x_0.device, self._middles)
        at_t, t = self._levels.scales(level), self._levels.times[level]
        alpha, sigma = at_t
        x_t = alpha * x_0 + sigma * eps
        with torch.no_grad():
            following = self._levels.scales(level + 1)
            target = two_step_target(self.stage_teacher, x_t, t, self._middles[level], following, labels)
        if self.weighting == "parameterization":
            parameterization = student.parameterization
            wanted = parameterization.target(target, (x_t - alpha * target) / sigma, alpha, sigma)
            error, weight = student(x_t, t, labels) - wanted, parameterization.loss_weight(alpha, sigma)
        else:
            snr = (alpha / sigma).square()
            error = student.denoise(x_t, t, labels) - target
            weight = snr.clamp(min=1) if self.weighting == "truncated_snr" else snr + 1
        return (error.square() * weight).flatten(1).mean(1).to(x_0.dtype)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Computes the loss of one step on uint8 images and labels, the mean over the images."""
        loss = super().training_step(batch, batch_idx)
        if self.logs_now:
            self.log("train/student_steps", float(self.sampler.steps))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights on held-out images, at fixed noises and evenly spread noise levels."""
        images, labels = batch
        x_0 = to_float(images)
        eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(batch_idx)).to(x_0)
        level = torch.arange(len(x_0), device=x_0.device) * self.sampler.steps // len(x_0)
        loss = self.loss_at(self.average, x_0, eps, level, labels if self.num_classes else None).mean()
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(images))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then the average; after the last step of a stage, hands over to the next student."""
        super().optimizer_step(*args, **kwargs)
        if self.stage > self._entered:
            update_average(self.predecessor, self.average, 0.0)
            update_average(self.trained, self.average, 0.0)
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
            self._enter_stage()

    def update_average(self, images: int) -> None:
        """Moves the average, which began with the stage, after a step over ``images`` images."""
        update_average(self.average, self.trained, self.averaging.decay(images, self.images_seen - self._stage_start))

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step: falls to 0 within the stage, with ``lr_decay``."""
        rate, length = super().learning_rate(), float(self.stage_images)
        if self._entered == self.halving.stages - 1:
            length = max(length, self._images_of_run - self._stage_start)
        return rate * (1 - (self.images_seen - self._stage_start) / length) if self.lr_decay else rate

    @property
    def _stage_start(self) -> int:
        return self._entered * self.stage_images

    def setup(self, stage: str) -> None:
        """Checks the length of the run, then the teacher, before training begins."""
        if stage == "fit":
            self._check_length()
        super().setup(stage)

    def _check_length(self) -> None:
        """Raises UserError when the run is too short for the stages."""
        trainer, data = self.trainer, self.trainer.datamodule
        if data is None or trainer.max_steps < 0 or trainer.fast_dev_run:
            return
        images = data.batch_size * trainer.accumulate_grad_batches
        self._images_of_run, needed = trainer.max_steps * images, self.halving.stages * self.stage_images
        if self.stage_images < images:
            raise UserError(
                f"stage_images is {self.stage_images}, less than one step's {images}; give at least {images}"
            )
        if self._images_of_run < needed:
            raise UserError(
                f"{self.halving.stages} stages of stage_images {self.stage_images:,} need {needed:,} images, the run "
                f"trains on {self._images_of_run:,} ({trainer.max_steps:,} steps of {images:,}); type "
                f"--trainer.max_steps {math.ceil(needed / images)}, or fewer --model.stage_images"
            )

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Restores the progress of a training, and with it the stage."""
        super().take_progress(progress)
        self._enter_stage()
