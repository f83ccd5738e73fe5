"""What the trained modules share: optimiser, warm-up, averaged weights, and a watch over gradients."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.images import to_float
from repro.models.base import RecordedModule, seed_step
from repro.training.ema import ema_decay, update_average

__all__ = ["OptimizedModule", "TrainedModule"]


class OptimizedModule(RecordedModule):
    """Base of the modules with trained weights; one of them defines ``training_step`` and draws with ``average``.

    A step begins with :meth:`start_step`: every draw of it derives from (seed, images seen), so a resumed run equals
    an uninterrupted one.

    Args:
        trained: What is trained; its average, which samples, starts as a copy.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Attributes:
        trained: The trained weights.
        average: Their average, always in evaluation mode.
        nonfinite_steps: Skipped steps so far.

    Raises:
        UserError: a value outside its range, or an unknown optimiser.
    """

    trained: nn.Module
    average: nn.Module

    def __init__(
        self,
        trained: nn.Module,
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
        super().__init__()
        for name, value, legal in (
            ("lr", lr, lr > 0),
            ("lr_warmup", lr_warmup, lr_warmup >= 0),
            ("ema_halflife", ema_halflife, ema_halflife >= 0),
            ("ema_rampup", ema_rampup, ema_rampup is None or ema_rampup > 0),
            ("nonfinite_limit", nonfinite_limit, nonfinite_limit >= 0),
        ):
            if not legal:
                raise UserError(f"{name} is {value}; it must be {'at least 0' if value < 0 else 'above 0'}")
        known = [name for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name != "Optimizer"]
        if optimizer not in known:
            raise unknown("optimizer", optimizer, known)
        self.optimizer, self.lr, self.optimizer_args = optimizer, lr, optimizer_args or {}
        self.lr_warmup, self.ema_halflife, self.ema_rampup = lr_warmup, ema_halflife, ema_rampup
        self.nonfinite_limit, self.nonfinite_steps = nonfinite_limit, 0
        self.channels_last, self.seed = channels_last, seed
        self.trained = trained.to(memory_format=torch.channels_last) if channels_last else trained
        self.average = copy.deepcopy(trained).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> OptimizedModule:
        """Puts the trained weights in training mode; the averaged ones always stay in evaluation mode."""
        super().train(mode)
        self.average.eval()
        return self

    def use_raw_weights(self) -> None:
        """Copies the weights of the last step over their average."""
        update_average(self.average, self.trained, 0.0)

    @property
    def logs_now(self) -> bool:
        """Whether the current step is logged; never outside a trainer."""
        if self._trainer is None:
            return False
        step = self.trainer.global_step
        return step == 0 or (step + 1) % self.trainer.log_every_n_steps == 0

    def note(self, **values: Tensor | float) -> None:
        """Logs values of the current step as ``train/NAME`` when it is a step that is logged."""
        if self.logs_now:
            self.log_dict({f"train/{name}": value for name, value in values.items()})

    def start_step(self, images: Tensor) -> Tensor:
        """Seeds the draws of a training step on uint8 images and gives them as floats in [-1, 1]."""
        seed_step(self.seed, self.images_seen, self.global_rank)
        x_0 = to_float(images)
        return x_0.contiguous(memory_format=torch.channels_last) if self.channels_last else x_0

    def optimizer_over(self, module: nn.Module) -> torch.optim.Optimizer:
        """A new optimiser over the trained weights of a part.

        Raises:
            UserError: arguments that the optimiser does not take.
        """
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        try:
            return getattr(torch.optim, self.optimizer)(trained, lr=self.lr, **self.optimizer_args)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"torch.optim.{self.optimizer} refuses its arguments: {error}") from error

    def learning_rate(self) -> float:
        """The learning rate of the next step, from the images seen."""
        return self.lr * (min(1.0, (self.images_seen + 1) / self.lr_warmup) if self.lr_warmup else 1.0)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate."""
        rate = self.learning_rate()
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measures the gradient; a step with a non-finite one is skipped and counted, too many stop the training."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            self.nonfinite_steps += 1
            optimizer.zero_grad(set_to_none=True)
            if self.nonfinite_steps > self.nonfinite_limit:
                clipped = " or set --trainer.gradient_clip_val 1.0" if self.automatic_optimization else ""
                raise UserError(
                    f"{self.nonfinite_steps} steps had a non-finite gradient (limit {self.nonfinite_limit}) after "
                    f"{self.images_seen} images; lower --model.lr{clipped}"
                )
        rate, name = optimizer.param_groups[0]["lr"], f"grad_norm{self.name_of(optimizer)}"
        self.note(lr=rate, nonfinite_steps=self.nonfinite_steps, **{name: norm})

    def name_of(self, optimizer: torch.optim.Optimizer) -> str:
        """What the logs append to the name of a gradient's norm; empty for a single optimiser."""
        return ""

    def update_average(self, images: int) -> None:
        """Moves the average towards the trained weights after a step over ``images`` images."""
        decay = ema_decay(images, self.images_seen, self.ema_halflife, self.ema_rampup)
        update_average(self.average, self.trained, decay, trained_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the count of skipped steps to the record."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["repro"]["nonfinite_steps"] = self.nonfinite_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes progress and the count of skipped steps back."""
        super().on_load_checkpoint(checkpoint)
        self.nonfinite_steps = checkpoint["repro"]["nonfinite_steps"]


class TrainedModule(OptimizedModule):
    """Base of the modules that minimise one loss; one of them defines :meth:`loss` and draws with ``average``."""

    @abstractmethod
    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Training loss of each image, shape (B,), with fresh draws from the default generator.

        Args:
            x_0: Images in [-1, 1], shape (B, C, H, W).
            labels: Class numbers, int64 (B,), or None for an unconditional model.
        """

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step on uint8 images and labels."""
        images, labels = batch
        x_0 = self.start_step(images)
        loss = self.loss(x_0, labels if self.num_classes else None).mean()
        self.images_seen += len(images) * self.trainer.world_size
        if self.logs_now:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser over the trained weights."""
        return self.optimizer_over(self.trained)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then the average."""
        before = self.images_seen
        super().optimizer_step(*args, **kwargs)
        self.update_average((self.images_seen - before) * self.trainer.accumulate_grad_batches)
