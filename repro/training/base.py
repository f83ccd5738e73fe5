"""What all training modes share: a Lightning module that has a model, its optimiser, its average and its progress."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from repro.checkpoints.format_1 import in_format_2
from repro.checkpoints.native import FORMAT, class_names_of
from repro.data.base import ImageData
from repro.data.trust import was_named
from repro.errors import UserError
from repro.images import check_range, to_float
from repro.models.base import Recorded
from repro.records import record_of
from repro.registry import Plugin
from repro.training.optimization import Average, Optimization, update_average
from repro.training.source import Unasked

__all__ = ["LossModule", "Part", "TrainingModule", "seed_step"]

_LOWEST_SCALE = 2.0**-20  # a sound training keeps its scale above 1, mostly far above


def seed_step(seed: int, images_seen: int, rank: int) -> None:
    """Seeds the default generators for one training step, from (seed, images seen, rank) alone.

    A resumed run so draws what an uninterrupted one would have drawn.
    """
    state = (seed * 0x9E3779B97F4A7C15 + images_seen * 0xD1B54A32D192ED03 + rank * 0x8CB92BA72F3D8DD7) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    number = (state ^ (state >> 31)) % 2**63
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


class Part:
    """Base of what has a say in a training beside its mode, such as a teacher; any method may be left out."""

    def setup(self, module: TrainingModule) -> None:
        """Reads and checks what the part needs, before anything is trained.

        Raises:
            UserError: it cannot be had, or does not fit the module or its data.
        """

    def begin(self, module: TrainingModule) -> None:
        """Acts on the module once its checkpoint, if there is one, has been loaded."""

    def progress(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of the part, as plain data."""
        return {}

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Goes on from what :meth:`progress` gave."""


class TrainingModule(L.LightningModule, Plugin):
    """Base of the training modes: it has a model, whose weights are the average of those that are trained.

    A step begins with :meth:`start_step`: every draw of it derives from (seed, images seen), so a resumed run equals
    an uninterrupted one. Any ``lightning.Trainer`` trains it.

    Args:
        model: What comes of the training.
        trained: What is trained; the part of the model called :attr:`averaged` is its average and starts as its copy.
        optimization: How the weights are moved.
        average: How they are averaged.
        channels_last: Whether images and convolution weights are channels-last in memory.
        seed: Seed of every random draw in training.
        parts: What else has a say, such as a teacher.

    Attributes:
        averaged: Name of the part of the model that is the average of ``trained``.
        takes_over_from: Name of the argument that names a model to learn from, whose network is taken where none is
            named; None where there is none.
        images_seen: Training images so far, over all processes: the one measure of progress.
        nonfinite_steps: Skipped steps so far.
        data_record: Plain record of the training data, or None when they are not known.
        data_fingerprint: Hash of the training images, empty when they are not known.
    """

    averaged: ClassVar[str] = "denoiser"
    takes_over_from: ClassVar[str | None] = None

    def __init__(
        self,
        model: Recorded,
        trained: nn.Module,
        optimization: Optimization,
        average: Average,
        channels_last: bool = False,
        seed: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        super().__init__()
        self.model, self.trained, self.optimization, self.averaging = model, trained, optimization, average
        self.channels_last, self.seed, self.parts = channels_last, seed, tuple(parts)
        self.images_seen, self.nonfinite_steps = 0, 0
        self._unread: Tensor | None = None
        self._checked = False
        if channels_last:
            for part in (trained, self.average):
                part.to(memory_format=torch.channels_last)
        self.model.requires_grad_(False).eval()

    @classmethod
    def inside_only(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps the path of a teacher or start that somebody else's file names from being read."""
        kept, role = super().inside_only(arguments), cls.takes_over_from or ""
        path = kept.get(role)
        return {**kept, role: Unasked(path)} if isinstance(path, str) and not was_named(path) else kept

    @property
    def average(self) -> Any:
        """The part of the model that holds the averaged weights, always in evaluation mode."""
        return getattr(self.model, self.averaged)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.model.image_shape

    @property
    def num_classes(self) -> int:
        """Number of classes that labels may name; 0 for an unconditional model."""
        return self.model.num_classes

    def train(self, mode: bool = True) -> TrainingModule:
        """Puts the trained weights in training mode; the model always stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    @property
    def logs_now(self) -> bool:
        """True: the current step is logged; never outside a trainer."""
        if self._trainer is None:
            return False
        step = self.trainer.global_step
        return step == 0 or (step + 1) % self.trainer.log_every_n_steps == 0

    def note(self, **values: Tensor | float) -> None:
        """Logs values of the current step as ``train/NAME`` when it is a step that is logged."""
        if self.logs_now:
            self.log_dict({f"train/{name}": value for name, value in values.items()})

    def start_step(self, images: Tensor) -> Tensor:
        """Seeds the draws of a training step, and returns its uint8 images as floats in [-1, 1]."""
        seed_step(self.seed, self.images_seen, self.global_rank)
        if not self._checked:
            self._checked = True
            check_range(images)
        x_0 = to_float(images)
        return x_0.contiguous(memory_format=torch.channels_last) if self.channels_last else x_0

    def configure_optimizers(self) -> Any:
        """Builds the optimiser over the trained weights."""
        return self.optimization.over(self.trained)

    def learning_rate(self) -> float:
        """Returns the learning rate of the next step, from the images seen."""
        return self.optimization.rate(self.images_seen)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate."""
        rate = self.learning_rate()
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measures the gradient; a step with a non-finite one is skipped and counted, too many stop the training.

        On a processor the step is left out. On an accelerator, where a look at the number would make the processor
        wait for it, it is taken with a gradient of 0, and the count is read when a step is logged. Under a scaler of
        float16 such steps are the scaler's own, which leaves them out itself; they are not counted. But when its scale
        has fallen so low that no gradient can be finite, a step that is logged stops the training.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            if norm.device.type == "cpu":
                if not math.isfinite(norm.item()):
                    self.nonfinite_steps += 1
                    optimizer.zero_grad(set_to_none=True)
                    self._check_nonfinite_steps()
            else:
                bad = ~norm.isfinite()
                for gradient in gradients:
                    gradient.masked_fill_(bad, 0.0)
                self._unread = bad.long() if self._unread is None else self._unread + bad
        if self.logs_now:
            self._read_nonfinite_steps()
            rate, name = optimizer.param_groups[0]["lr"], f"grad_norm{self.name_of(optimizer)}"
            self.note(lr=rate, nonfinite_steps=self.nonfinite_steps, **{name: norm})
            if scaler is not None and scaler.is_enabled():
                self._check_scale(scaler.get_scale())

    def _check_scale(self, scale: float) -> None:
        """Logs the scale of float16 losses, and raises UserError when it has fallen away."""
        self.note(loss_scale=scale)
        if scale < _LOWEST_SCALE:
            raise UserError(
                f"the training has diverged: after {self.images_seen:,} images the scale of float16 losses has fallen "
                f"to {scale:.1e}, as in every step a gradient is not finite; lower --model.lr or type "
                "--trainer.precision bf16-mixed"
            )

    def _read_nonfinite_steps(self) -> None:
        """Adds what was counted on an accelerator since the last look."""
        if self._unread is not None:
            self.nonfinite_steps, self._unread = self.nonfinite_steps + int(self._unread), None
            self._check_nonfinite_steps()

    def _check_nonfinite_steps(self) -> None:
        """Raises UserError when too many steps had a non-finite gradient."""
        limit = self.optimization.nonfinite_limit
        if self.nonfinite_steps > limit:
            clipped = " or set --trainer.gradient_clip_val 1.0" if self.automatic_optimization else ""
            raise UserError(
                f"{self.nonfinite_steps} steps had a non-finite gradient (limit {limit}) after "
                f"{self.images_seen} images; lower --model.lr{clipped}"
            )

    def name_of(self, optimizer: torch.optim.Optimizer) -> str:
        """What the logs append to the name of a gradient's norm; empty for a single optimiser."""
        return ""

    def update_average(self, images: int) -> None:
        """Moves the average towards the trained weights after a step over ``images`` images."""
        update_average(self.average, self.trained, self.averaging.decay(images, self.images_seen), trained_only=True)

    def setup(self, stage: str) -> None:
        """Lets the parts read and check what they need before training begins."""
        if stage == "fit":
            for part in self.parts:
                part.setup(self)

    def on_fit_start(self) -> None:
        """Remembers the training data, and lets the parts begin."""
        self._checked = isinstance(self.trainer.datamodule, ImageData)  # which looks at its images itself
        self._warn_of_warmup()
        data = self.trainer.datamodule
        if isinstance(data, ImageData):
            self.model.data_record, self.model.data_fingerprint = record_of(data), data.fingerprint()
            self.model.class_names = self._names_of(data)
        for part in self.parts:
            part.begin(self)

    def _names_of(self, data: ImageData) -> tuple[str, ...]:
        """Names of the model's classes, unless they are but their numbers."""
        names = data.class_names if self.num_classes else ()
        return () if names == tuple(map(str, range(len(names)))) else names

    def _warn_of_warmup(self) -> None:
        """Says so when the learning rate still rises as the training ends."""
        trainer, warmup = self.trainer, self.optimization.lr_warmup
        size = getattr(trainer.datamodule, "batch_size", None)
        if size is None or trainer.max_steps < 1 or trainer.fast_dev_run:
            return
        images = trainer.max_steps * size * trainer.accumulate_grad_batches
        if warmup > images:
            rank_zero_warn(
                f"the warm-up is longer than the training: lr_warmup is {warmup:,} images, the run has {images:,}, "
                f"so the learning rate ends at {images / warmup:.0%} of lr; type --model.lr_warmup {images // 10}",
                category=RuntimeWarning,
            )

    def progress(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of the training besides tensors, as plain data."""
        self._read_nonfinite_steps()
        own = {"images_seen": self.images_seen, "nonfinite_steps": self.nonfinite_steps}
        return own | {key: value for part in self.parts for key, value in part.progress().items()}

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Goes on from what :meth:`progress` gave."""
        self.images_seen, self.nonfinite_steps = progress["images_seen"], progress["nonfinite_steps"]
        for part in self.parts:
            part.take_progress(progress)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the plain records from which the model and the training are rebuilt without a command line."""
        checkpoint["repro"] = {
            "format": FORMAT,
            "model": {
                "record": record_of(self.model),
                "averaged": self.averaged,
                "data": self.model.data_record,
                "data_fingerprint": self.model.data_fingerprint,
                "class_names": list(self.model.class_names),
            },
            "training": {"record": record_of(self), **self.progress()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes progress and training data back; a checkpoint of the first format is brought to the second."""
        in_format_2(checkpoint, self.averaged)
        record = checkpoint["repro"]
        self.take_progress(record["training"] | {"global_step": checkpoint["global_step"]})
        self.model.data_record = record["model"]["data"]
        self.model.data_fingerprint = record["model"]["data_fingerprint"]
        self.model.class_names = class_names_of(checkpoint)


class LossModule(TrainingModule):
    """Base of the training modes that minimise one loss; one of them defines :meth:`loss`."""

    @abstractmethod
    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the training loss of each image, shape (B,), with fresh draws from the default generator.

        Args:
            x_0: Images in [-1, 1], shape (B, C, H, W).
            labels: Class numbers, int64 (B,), or None for an unconditional model.
        """

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Computes the loss of one step on uint8 images and labels, the mean over the images."""
        images, labels = batch
        x_0 = self.start_step(images)
        loss = self.loss(x_0, labels if self.num_classes else None).mean()
        self.images_seen += len(images) * self.trainer.world_size
        if self.logs_now:
            self.log("train/loss", loss)  # with prog_bar Lightning would read it in every step
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimiser, then moves the average."""
        before = self.images_seen
        super().optimizer_step(*args, **kwargs)
        self.update_average((self.images_seen - before) * self.trainer.accumulate_grad_batches)
