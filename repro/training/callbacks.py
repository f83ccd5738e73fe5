"""What happens beside the training: checkpoints, sample grids, throughput, the smallest possible loss."""

from __future__ import annotations

import json
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor
from torchvision.utils import make_grid

from repro.data.progress import LINE_SECONDS
from repro.denoisers import EmpiricalDenoiser
from repro.errors import UserError, check_above, check_at_least
from repro.files import say, write_text
from repro.images import viewable
from repro.models.base import Model
from repro.noise import parse_seeds
from repro.records import flat, record_of
from repro.training import signals
from repro.training.base import TrainingModule
from repro.training.diffusion import Diffusion
from repro.training.optimal_loss import losses_by_level, optimal_loss, optimum_of

__all__ = ["HyperParameters", "OptimalLoss", "ProgressLines", "RunCheckpoint", "SampleGrid", "StepsBar", "Throughput"]


_GO_ON, _SAVE, _STOP = range(3)


class RunCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` of a run up to date, at intervals and at the end, and says so in ``run.json``.

    A signal that asks to stop is heeded when the running step is done: its state is saved first. When something else
    ends the training of one process, such as a data set that cannot be read on, the state after the last whole step is
    saved; of several processes, which may not be at the same step, the newest checkpoint stays. Weights that are not
    finite are never saved: the training stops, and the newest checkpoint before them stays.

    Args:
        every_n_steps: Optimiser steps between two checkpoints.
        keep: Also keep each of them under its own name, ``step=N.ckpt``.
        every_minutes: Minutes between two checkpoints at most, whatever the number of steps.
    """

    def __init__(self, every_n_steps: int = 1000, keep: bool = False, every_minutes: float = 10.0) -> None:
        check_at_least(1, every_n_steps=every_n_steps)
        check_above(0, every_minutes=every_minutes)
        self.keep, self.every_minutes, self._saved_at = keep, every_minutes, time.monotonic()
        self._whole_step, self._images_seen = -1, 0
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Holds signals back until a step is done."""
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        signals.hold()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when the steps or the minutes are over, or a signal asks to stop; then stops."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._whole_step, self._images_seen = trainer.global_step, trainer.lightning_module.images_seen
            self._heed(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stops when a signal asks to."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._heed(trainer)

    def _heed(self, trainer: L.Trainer) -> None:
        decision = _STOP if signals.pending() else _SAVE if self._is_late() else _GO_ON
        decision = _largest(trainer, decision)
        if decision != _GO_ON and self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if decision == _STOP:
            raise signals.Interrupted(signals.pending() or signal.SIGTERM)

    def _is_late(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.every_minutes

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves the state after the last whole step, and lets signals stop the program again."""
        super().on_exception(trainer, pl_module, exception)
        signals.release()
        whole = self._whole_step == trainer.global_step != self._last_global_step_saved
        if whole and trainer.world_size == 1 and not isinstance(exception, (UserError, signals.Interrupted)):
            trainer.lightning_module.images_seen = self._images_seen  # the batch that failed does not count
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        _check_finite(trainer.lightning_module, Path(filepath).parent)
        super()._save_checkpoint(trainer, filepath)
        self._saved_at = time.monotonic()
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
                "class_names": list(module.model.class_names),
                "draws": isinstance(module.model, Model),
            }
            write_text(Path(filepath).parent.parent / "run.json", json.dumps(status, indent=1) + "\n")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last state, unless it was just saved."""
        super().on_train_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        signals.release()


def _largest(trainer: L.Trainer, decision: int) -> int:
    """The largest wish of all processes, so that they save and stop at the same step.

    It is asked for where reading it costs nothing: on a processor after every step, else after those that are logged.
    """
    if trainer.world_size == 1:
        return decision
    if trainer.strategy.root_device.type != "cpu" and trainer.global_step % trainer.log_every_n_steps:
        return _GO_ON
    wishes = torch.tensor(float(decision), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(wishes, reduce_op="max"))


def _check_finite(module: L.LightningModule, folder: Path) -> None:
    """Raises UserError when a weight of the module is NaN or infinite."""
    named = [(name, each) for name, each in module.named_parameters() if each.is_floating_point()]
    finite = torch.stack([each.detach().isfinite().all() for _, each in named]).tolist()
    bad = [name for (name, _), good in zip(named, finite, strict=True) if not good]
    if bad:
        kept = (
            "the newest checkpoint before that is kept" if any(folder.glob("*.ckpt")) else "no checkpoint was written"
        )
        raise UserError(
            f"the training has diverged: {len(bad)} tensors are not finite after {module.images_seen:,} images, first "
            f"{bad[0]}; {kept}; lower --model.lr"
        )


class StepsBar(RichProgressBar):
    """Lightning's rich progress bar over the steps of a run, which is one epoch long, also after a resume.

    It shows the losses of the latest step that was logged, and reads them from the device once.
    """

    _read_at, _losses = -1, dict[str, float]()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Adds the latest losses to what Lightning shows."""
        step = trainer.global_step
        logged = step - step % trainer.log_every_n_steps or min(step, 1)
        if logged != self._read_at:
            latest = trainer.callback_metrics.items()
            self._read_at = logged
            self._losses = {name: float(value) for name, value in latest if name.startswith("train/loss")}
        return super().get_metrics(trainer, pl_module) | self._losses

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


class ProgressLines(L.Callback):
    """Prints the progress of a training as a line at an interval, where there is no terminal for a bar.

    Args:
        seconds: Between two lines.
    """

    def __init__(self, seconds: float = LINE_SECONDS) -> None:
        if not seconds > 0:
            raise UserError(f"seconds is {seconds:g}; give a number above 0")
        self.seconds = seconds
        self._began, self._printed = (0.0, 0, 0), 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        """Starts the clock."""
        self._printed = time.monotonic()
        self._began = (self._printed, trainer.global_step, pl_module.images_seen)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints a line when its time has come."""
        now = time.monotonic()
        if now - self._printed < self.seconds:
            return
        self._printed = now
        began, step, images = self._began
        done, most, loss = trainer.global_step, trainer.max_steps, trainer.callback_metrics.get("train/loss")
        words = [f"step {done:,}" if most < 1 else f"step {done:,} of {most:,} ({done / most:.0%})"]
        words.append(f"{(pl_module.images_seen - images) / (now - began):,.0f} images a second")
        if loss is not None:
            words.append(f"loss {float(loss):.4g}")
        if most > 0 and done > step:
            words.append(f"{timedelta(seconds=round((most - done) * (now - began) / (done - step)))} left")
        say(", ".join(words))


class SampleGrid(L.Callback):
    """Logs a grid of the images that fixed seeds give under the averaged weights of a model that draws.

    Every logger that takes pictures gets it: TensorBoard, MLflow, and those with ``log_image`` as W&B's has it.

    Args:
        seeds: Which noises, for example ``0-15``.
        every_n_steps: Optimiser steps between two grids; there is one at the end too.
    """

    def __init__(self, seeds: str = "0-15", every_n_steps: int = 1000) -> None:
        self.seeds, self.every_n_steps = parse_seeds(seeds), every_n_steps
        check_at_least(1, every_n_steps=every_n_steps)
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
        try:
            images = viewable(pl_module.model.sample(self.seeds, labels))
        except UserError as error:  # a picture is no reason to end a training, which watches its weights itself
            rank_zero_warn(f"no picture after {trainer.global_step:,} steps: {error}")
            return
        grid = make_grid(images, nrow=max(1, round(count**0.5)), padding=1)
        for logger in trainer.loggers:
            _log_picture(logger, "samples/average", grid, trainer.global_step)


def _log_picture(logger: Logger, name: str, picture: Tensor, step: int) -> None:
    """Gives a picture, uint8 (C, H, W), to a logger that takes pictures; another one is left alone."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture.permute(1, 2, 0).numpy(), key=name, step=step)
    elif hasattr(logger, "log_image"):  # as W&B's has it
        logger.log_image(key=name, images=[picture.permute(1, 2, 0).numpy()], step=step)


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
            pl_module.log_dict({"train/images_per_second": rate, "train/images_seen": float(pl_module.images_seen)})
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
        check_at_least(1, "OptimalLoss", every_n_steps=every_n_steps, images=images)
        check_at_least(0, "OptimalLoss", levels=levels)
        self.levels, self.every_n_steps, self.images, self.precision = levels, every_n_steps, images, precision
        self._optimum: EmpiricalDenoiser | None = None
        self._optimal: float | None = None
        self._looked = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingModule) -> None:
        """Builds the empirical optimum of the training images.

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
        """Logs the optimum's loss and how far the model's is above it."""
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
        """Logs the settings once, before the first step."""
        settings = flat(record_of(pl_module), "model")
        if trainer.datamodule is not None:
            settings |= flat(record_of(trainer.datamodule), "data")
        settings = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        settings["parameters"] = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)
