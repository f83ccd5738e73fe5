"""The trainer: Lightning's, with this project's defaults, numbered sampling and scores."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from repro.banks import Bank, format_seeds
from repro.banks.manifest import MANIFEST_NAME
from repro.checkpoints.loading import load_module
from repro.checkpoints.native import AtomicCheckpointIO
from repro.data.base import ImageData
from repro.descriptors import Descriptor, default_descriptor
from repro.drawing.sampling import Draws, bank_writer, sample
from repro.drawing.scores import Scores
from repro.errors import UserError
from repro.images import to_uint8
from repro.inverse.problem import Problem
from repro.metrics.functional.mae import check_mae_threshold
from repro.metrics.functional.similarity import check_threshold
from repro.metrics.protocol import pair_metrics
from repro.models.base import GenerativeModule, RecordedModule
from repro.noise import parse_seeds
from repro.plots import image_grid, save_figure
from repro.registry import load, rebuild
from repro.samplers.base import Sampler
from repro.tasks.base import Conditional, Task
from repro.training.callbacks import HyperParameters, RunCheckpoint, SampleGrid, StepsBar, Throughput, WriteBank

__all__ = ["Trainer"]


class Trainer(L.Trainer):
    """Lightning's trainer for generative modules.

    The whole training is one epoch of ``max_steps`` steps. Checkpoints are written atomically to
    ``<default_root_dir>/checkpoints/last.ckpt``, logs go to TensorBoard in ``<default_root_dir>``.

    Args:
        max_steps: Optimiser steps.
        default_root_dir: The run's folder.
        logger: A Lightning logger, several, or False for none; by default TensorBoard.
        callbacks: Further callbacks; one of a kind that is there by default replaces the default.
        log_every_n_steps: Steps between two log entries.
        plugins: Lightning plug-ins.
        **kwargs: Everything else that ``lightning.Trainer`` takes.
    """

    def __init__(
        self,
        *,
        max_steps: int = 10_000,
        default_root_dir: str | Path | None = None,
        logger: Any = None,
        callbacks: list[L.Callback] | L.Callback | None = None,
        log_every_n_steps: int = 50,
        plugins: Any = None,
        **kwargs: Any,
    ) -> None:
        root = Path(default_root_dir or "runs/run")
        callbacks = [callbacks] if isinstance(callbacks, L.Callback) else list(callbacks or [])
        defaults = [RunCheckpoint(), SampleGrid(), Throughput(), HyperParameters()]
        if kwargs.get("enable_progress_bar") is not False:
            defaults.append(StepsBar(leave=True))
        if kwargs.get("enable_checkpointing") is False:
            defaults = defaults[1:]
        kinds = tuple(ProgressBar if isinstance(c, ProgressBar) else type(c) for c in callbacks)
        callbacks += [default for default in defaults if not isinstance(default, kinds)]
        for callback in callbacks:
            if isinstance(callback, RunCheckpoint) and callback.dirpath is None:
                callback.dirpath = os.fspath(root / "checkpoints")
        plugins = [plugins] if plugins is not None and not isinstance(plugins, list) else plugins or []
        super().__init__(
            max_steps=max_steps,
            max_epochs=-1,
            default_root_dir=os.fspath(root),
            logger=TensorBoardLogger(root, name=None, version="") if logger is None or logger is True else logger,
            callbacks=callbacks,
            log_every_n_steps=log_every_n_steps,
            use_distributed_sampler=False,
            plugins=[*plugins, AtomicCheckpointIO()],
            **kwargs,
        )

    def predict(
        self,
        model: GenerativeModule | None = None,
        datamodule: ImageData | None = None,
        ckpt_path: str | None = None,
        seeds: str = "0-999",
        task: str | None = None,
        output: str | None = None,
        sampler: Sampler | None = None,
        weights: Literal["ema", "raw"] = "ema",
        problem: Problem | None = None,
        guidance: float = 1.0,
        classes: str | None = None,
        shard_size: int = 250,
    ) -> Path:
        """Draws numbered images into a sample bank, going on where an interrupted one stopped.

        Args:
            model: The model; not needed when ``ckpt_path`` is given.
            datamodule: Not used.
            ckpt_path: A checkpoint or a run's folder; the model is rebuilt from its own record.
            seeds: Which noises, for example 0-9999.
            task: What is drawn for each noise; by default ``conditional`` for a model with classes, else
                ``unconditional``.
            output: Folder of the bank; by default ``banks/<task>_<seeds>`` in the run's folder, which for an
                author-released file is ``runs/imported/<file>``.
            sampler: Draw with this sampler instead of the model's own.
            weights: Averaged weights (``ema``) or those of the last step (``raw``).
            problem: What an inverse task measures.
            guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none.
            classes: Which classes a conditional model draws, for example 0-4,7; by default all.
            shard_size: Seeds at a time, and in each file.

        Returns:
            The bank's folder.

        Raises:
            UserError: no model, bad seeds, a task that the model cannot do, a folder with other samples.
        """
        numbers = parse_seeds(seeds)
        model, doing = self._prepare(model, ckpt_path, sampler, weights, task, problem, guidance, classes)
        folder = (
            Path(output)
            if output
            else self._run_folder(ckpt_path) / "banks" / f"{_label(doing, model)}_{format_seeds(numbers)[:40]}"
        )
        writer = bank_writer(folder, model, doing, numbers, shard_size)
        callback = WriteBank(writer)
        self.callbacks.append(callback)
        try:
            super().predict(
                model, datamodule=Draws(model, doing, numbers, shard_size, writer), return_predictions=False
            )
        finally:
            self.callbacks.remove(callback)
        return folder

    def test(
        self,
        model: GenerativeModule | None = None,
        datamodule: ImageData | None = None,
        ckpt_path: str | None = None,
        seeds: str = "0-999",
        task: str | None = None,
        reference: list[str] | None = None,
        descriptor: Descriptor | None = None,
        threshold: float | None = None,
        mae_threshold: float = 15.0,
        metric: list[str] | None = None,
        sampler: Sampler | None = None,
        weights: Literal["ema", "raw"] = "ema",
        problem: Problem | None = None,
        guidance: float = 1.0,
        classes: str | None = None,
        batch_size: int = 250,
    ) -> Scores:
        """Draws numbered images and scores them: RP and MAE against references, GL against the training images.

        Args:
            model: The model; not needed when ``ckpt_path`` is given.
            datamodule: Data for GL; by default those that the checkpoint was trained on.
            ckpt_path: A checkpoint or a run's folder; the model is rebuilt from its own record.
            seeds: Which noises, for example 0-9999.
            task: What is drawn for each noise; by default ``conditional`` for a model with classes, else
                ``unconditional``.
            reference: Banks, checkpoints or runs to compare with; the latter two are sampled first. Between a
                conditional and an unconditional one the score is between RP.
            descriptor: What makes two images alike; by default SSCD when its weights are present, else the small one
                that fits the images.
            threshold: Similarity above which two images are the same; by default the descriptor's.
            mae_threshold: Mean absolute difference below which they are, in [0, 255].
            metric: Names of further metrics of the group ``repro.metrics``.
            sampler: Draw with this sampler instead of the model's own.
            weights: Averaged weights (``ema``) or those of the last step (``raw``).
            problem: What an inverse task measures.
            guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none. References that are
                sampled and have classes get it too.
            classes: Which classes a conditional model draws, for example 0-4,7; by default all.
            batch_size: Seeds at a time.

        Returns:
            The scores, with counts and intervals.

        Raises:
            UserError: no model, bad seeds or thresholds, a reference of other seeds or sizes, nothing to score against.
        """
        numbers = parse_seeds(seeds)
        model, doing = self._prepare(model, ckpt_path, sampler, weights, task, problem, guidance, classes)
        descriptor = descriptor or default_descriptor(model.image_shape)
        threshold = check_threshold(descriptor.default_threshold if threshold is None else threshold)
        check_mae_threshold(mae_threshold)
        metrics = pair_metrics(metric or [], descriptor.name)
        banks = {
            Path(path).name: self.bank_of(path, doing.name, seeds, problem, guidance, classes)
            for path in reference or []
        }
        metrics = doing.metrics(model) | metrics
        for name, bank in banks.items():
            if tuple(bank.manifest.image_shape) != tuple(model.image_shape):
                raise UserError(
                    f"reference {name} has images {tuple(bank.manifest.image_shape)}, the model's are "
                    f"{tuple(model.image_shape)}; compare models of one image size"
                )
            if bank.manifest.extra != doing.record(model):
                raise UserError(
                    f"reference {name} was drawn for another problem; draw it for this one: give its checkpoint"
                )
        banks = doing.references(model, numbers) | banks
        if datamodule is None and model.data_record is not None and doing.trains:
            datamodule = rebuild(model.data_record)
        model.scores = Scores(
            banks,
            descriptor,
            threshold,
            mae_threshold,
            to_uint8(datamodule.images()) if datamodule is not None else None,
            metrics,
            self.strategy.root_device,
            doing.labels_record(model) is not None,
        )
        super().test(model, datamodule=Draws(model, doing, numbers, batch_size), verbose=False)
        if self.is_global_zero and (columns := doing.columns(model, numbers[:8])):
            others = {name: bank.select(numbers[:8]).images for name, bank in banks.items() if name not in columns}
            columns |= {"result": sample(model, numbers[:8]), **others}
            titles, rows = list(columns), [f"seed {seed}" for seed in numbers[:8]]
            figure = image_grid(torch.stack([*columns.values()], dim=1), titles, rows, doing.name, "one row a noise")
            model.scores.picture = self._run_folder(ckpt_path) / f"{_label(doing, model)}.png"
            model.scores.picture.parent.mkdir(parents=True, exist_ok=True)
            save_figure(figure, model.scores.picture)
        return model.scores

    def bank_of(
        self,
        path: str,
        task: str | None = None,
        seeds: str = "0-999",
        problem: Problem | None = None,
        guidance: float = 1.0,
        classes: str | None = None,
    ) -> Bank:
        """The bank at a path, or the one drawn from the checkpoint or run there.

        An unconditional model that is to stand beside conditional ones (``--task conditional``) draws what it can,
        images without labels and guidance.

        Raises:
            UserError: as :meth:`predict`, and a path that is neither.
        """
        if (Path(path) / MANIFEST_NAME).is_file():
            return Bank.open(path)
        drawer = Trainer(
            accelerator=self.accelerator, devices=self.num_devices, logger=False, enable_checkpointing=False
        )
        model = self._model_of(path, "ema")
        if not model.num_classes and task in (None, Conditional.name):
            task, guidance, classes = None, 1.0, None
        drawn = {"seeds": seeds, "task": task, "problem": problem, "guidance": guidance, "classes": classes}
        try:
            return Bank.open(drawer.predict(model, ckpt_path=path, **drawn))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def _prepare(
        self,
        model: GenerativeModule | None,
        ckpt_path: str | None,
        sampler: Sampler | None,
        weights: str,
        task: str | None,
        problem: Problem | None,
        guidance: float,
        classes: str | None,
    ) -> tuple[GenerativeModule, Task]:
        if model is None:
            model = self._model_of(ckpt_path, weights)
        _check_draws(model, ckpt_path or "the model")
        doing = load("tasks", task or ("conditional" if model.num_classes else "unconditional"))()
        if sampler is not None:
            model.use_sampler(sampler)
        else:
            doing.settle_sampler(model)
        if classes is not None:
            doing.choose_classes(classes)
        model.use_guidance(guidance)
        doing.prepare(model, problem or Problem())
        if guidance != 1 and doing.labels_record(model) is None:
            raise UserError(
                f"guidance is {guidance:g}, but --task {doing.name} draws without labels; leave it out, or type "
                "--task conditional"
            )
        return model, doing

    @staticmethod
    def _model_of(ckpt_path: str | None, weights: str) -> RecordedModule:
        """The model of a checkpoint or run."""
        if ckpt_path is None:
            raise UserError("nothing to sample from; give --ckpt_path CHECKPOINT, or a model that needs no training")
        return load_module(ckpt_path, weights)

    def _run_folder(self, ckpt_path: str | None) -> Path:
        path = Path(ckpt_path) if ckpt_path is not None else Path(self.default_root_dir)
        if path.is_file() and path.parent.name != "checkpoints" and path.suffix != ".ckpt":
            return Path("runs/imported") / path.stem
        if path.is_file():
            path = path.parent
        return path.parent if path.name == "checkpoints" else path


def _check_draws(model: RecordedModule, holder: str) -> None:
    """Raises UserError for a model of another kind, which draws no images."""
    if not isinstance(model, GenerativeModule):
        use = model.next_command.format(run=holder)
        raise UserError(f"{holder} holds a {type(model).__name__}, which draws no images; use it: {use}")


def _label(task: Task, model: GenerativeModule) -> str:
    """The task's name, with a short hash of what it measures, the scale of guidance and the chosen classes."""
    record, parts = task.record(model), [task.name]
    if record:
        parts.append(hashlib.sha256(json.dumps(record).encode()).hexdigest()[:8])
    if model.guidance != 1:
        parts.append(f"guidance{model.guidance:g}")
    if chosen := (task.labels_record(model) or {}).get("classes"):
        parts.append(f"classes{chosen[:40]}")
    return "-".join(parts)
