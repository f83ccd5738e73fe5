"""What happens beside the training: checkpoints, sample grids, throughput, the smallest possible loss."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torchvision.utils import make_grid

from repro.denoisers import EmpiricalDenoiser
from repro.errors import UserError
from repro.files import write_text
from repro.models.base import Model
from repro.noise import parse_seeds
from repro.records import flat, record_of
from repro.training.base import TrainingModule
from repro.training.diffusion import Diffusion
from repro.training.optimal_loss import losses_by_level, optimal_loss, optimum_of

__all__ = ["HyperParameters", "OptimalLoss", "RunCheckpoint", "SampleGrid", "StepsBar", "Throughput"]


class RunCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` of a run up to date, at intervals and at the end, and says so in ``run.json``.

    Args:
        every_n_steps: Optimiser steps between two checkpoints.
        keep: Also keep each of them under its own name, ``step=N.ckpt``.
    """

    def __init__(self, every_n_steps: int = 1000, keep: bool = False) -> None:
        if every_n_steps < 1:
            raise UserError(f"every_n_steps is {every_n_steps}; give at least 1")
        self.keep = keep
        super().__init__(
            filename="step={step}" if keep else "last",
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_steps,
            save_top_k=-1 if keep else 1,
            save_last=keep or None,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """One state whatever the interval, so that it may change on a resume."""
        return "RunCheckpoint"

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            module = trainer.lightning_module
            status = {
                "checkpoint": Path(filepath).name,
                "step": trainer.global_step,
                "images_seen": module.images_seen,
                "finished": trainer.global_step >= trainer.max_steps,
                "model": type(module).__name__,
                "image_shape": list(module.image_shape),
                "num_classes": module.num_classes,
                "draws": isinstance(module.model, Model),
            }
            write_text(Path(filepath).parent.parent / "run.json", json.dumps(status, indent=1) + "\n")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last state, unless it was just saved."""
        super().on_train_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class StepsBar(RichProgressBar):
    """Lightning's rich progress bar over the steps of a run, which is one epoch long, also after a resume."""

    @property
    def total_train_batches(self) -> int | float:
        """Batches of the whole run."""
        return self.trainer.num_training_batches

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows the bar of a run that goes on inside its epoch too."""
        super().on_train_start(trainer, pl_module)
        if trainer.fit_loop.restarted_mid_epoch:
            self.on_train_epoch_start(trainer, pl_module)

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"


class SampleGrid(L.Callback):
    """Logs a grid of the images that fixed seeds give under the averaged weights of a model that draws.

    Args:
        seeds: Which noises, for example ``0-15``.
        every_n_steps: Optimiser steps between two grids; there is one at the end too.
    """

    def __init__(self, seeds: str = "0-15", every_n_steps: int = 1000) -> None:
        self.seeds, self.every_n_steps = parse_seeds(seeds), every_n_steps
        if every_n_steps < 1:
            raise UserError(f"every_n_steps is {every_n_steps}; give at least 1")
        self._drawn = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draws the grid when its step has come."""
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        """Draws the last grid."""
        self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        if self._drawn == trainer.global_step or not isinstance(pl_module.model, Model):
            return
        self._drawn = trainer.global_step
        count = len(self.seeds)
        labels = torch.arange(count) % pl_module.num_classes if pl_module.num_classes else None
        grid = make_grid(pl_module.model.sample(self.seeds, labels), nrow=max(1, round(count**0.5)), padding=1)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples/average", grid, trainer.global_step)


class Throughput(L.Callback):
    """Logs training images a second, over all processes, at the trainer's logging interval."""

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures over the steps since the last logging."""
        if self._since is None:
            self._since = (time.perf_counter(), pl_module.images_seen)
        elif trainer.global_step % trainer.log_every_n_steps == 0:
            now = time.perf_counter()
            rate = (pl_module.images_seen - self._since[1]) / (now - self._since[0])
            pl_module.log_dict(
                {"train/images_per_second": rate, "train/images_seen": float(pl_module.images_seen)}, prog_bar=False
            )
            self._since = (now, pl_module.images_seen)


class OptimalLoss(L.Callback):
    """Logs, beside the training loss, the smallest one that the training images allow: has the model memorised them?

    ``train/optimal_loss`` is the loss of their empirical optimum at the very images, times and noises of the step, and
    ``train/excess_loss`` how much higher the model's is, at the trainer's logging interval: around 0, the training set
    is memorised. ``levels/RATIO/trained`` and ``levels/RATIO/optimal`` are both losses at fixed noise levels, for the
    averaged weights. On the command line: ``--trainer.callbacks+=OptimalLoss``.

    Each time costs two matrix products of the batch with the whole training set, which stays in memory as bytes.

    Args:
        levels: How many noise levels; 0 for none.
        every_n_steps: Optimiser steps between two looks at them; there is one at the end too.
        images: Training images that they are measured on.
        precision: Of the optimum's arithmetic; ``float32`` is faster, and right for ratios above about 0.1.
    """

    def __init__(
        self,
        levels: int = 8,
        every_n_steps: int = 1000,
        images: int = 256,
        precision: Literal["float64", "float32"] = "float64",
    ) -> None:
        for name, value, least in (("levels", levels, 0), ("every_n_steps", every_n_steps, 1), ("images", images, 1)):
            if value < least:
                raise UserError(f"OptimalLoss: {name} is {value}; give at least {least}")
        self.levels, self.every_n_steps, self.images, self.precision = levels, every_n_steps, images, precision
        self._optimum: EmpiricalDenoiser | None = None
        self._optimal: float | None = None
        self._looked = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        """Takes the training images.

        Raises:
            UserError: the model is no ``Diffusion``, whose loss has a known optimum.
        """
        if not isinstance(pl_module, Diffusion) or trainer.datamodule is None:
            raise UserError(
                f"OptimalLoss knows the optimum of Diffusion on a data plug-in, not of {type(pl_module).__name__}; "
                "leave the callback out"
            )
        optimum = optimum_of(pl_module, trainer.datamodule, precision=self.precision)
        self._optimum = optimum.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Diffusion, batch: Any, batch_idx: int) -> None:
        """Computes the optimum's loss at the draws of the step that follows, when that is logged."""
        if pl_module.logs_now:
            images, labels = batch
            x_0 = pl_module.start_step(images)
            t, eps = pl_module.draws(x_0)
            assert self._optimum is not None, "taken as training began"
            labels = labels if pl_module.num_classes else None
            losses = optimal_loss(self._optimum, pl_module.trained.parameterization, x_0, eps, t, labels)
            self._optimal = losses.mean().item()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Diffusion, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs it."""
        if self._optimal is not None:
            excess = outputs["loss"].item() * trainer.accumulate_grad_batches - self._optimal
            pl_module.log_dict({"train/optimal_loss": self._optimal, "train/excess_loss": excess})
            self._optimal = None
        if trainer.global_step % self.every_n_steps == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: Diffusion) -> None:
        """Looks at the noise levels a last time."""
        self._look(trainer, pl_module)

    @rank_zero_only
    def _look(self, trainer: L.Trainer, pl_module: Diffusion) -> None:
        if self._looked == trainer.global_step:
            return
        self._looked = trainer.global_step
        values = {}
        for level in losses_by_level(pl_module, self._optimum, trainer.datamodule, self.levels, self.images):
            values[f"levels/{level.ratio:.3g}/trained"] = level.trained
            values[f"levels/{level.ratio:.3g}/optimal"] = level.optimal
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


class HyperParameters(L.Callback):
    """Logs the model's and the data's settings as hyper-parameters."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        """Logs them once, before the first step."""
        settings = flat(record_of(pl_module), "model")
        if trainer.datamodule is not None:
            settings |= flat(record_of(trainer.datamodule), "data")
        settings = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        settings["parameters"] = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)
