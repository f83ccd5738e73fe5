"""The trainer: Lightning's, with this project's defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from repro.checkpoints.native import AtomicCheckpointIO
from repro.errors import check_at_least
from repro.training.callbacks import HyperParameters, ProgressLines, RunCheckpoint, SampleGrid, StepsBar, Throughput
from repro.training.notes import quietly, without_notes

__all__ = ["Trainer"]


class Trainer(L.Trainer):
    """Lightning's trainer for training modules; its methods are Lightning's own, without its notes.

    The whole training is one epoch of ``max_steps`` steps. Checkpoints are written atomically to
    ``<default_root_dir>/checkpoints/last.ckpt``, logs go to TensorBoard in ``<default_root_dir>``.

    Args:
        max_steps: Optimiser steps.
        default_root_dir: The run's folder.
        logger: A Lightning logger, several, or False for none; by default TensorBoard.
        callbacks: Further callbacks; one of a kind that is there by default replaces the default.
        log_every_n_steps: Steps between two log entries.
        plugins: Lightning plug-ins.
        **kwargs: Everything else that ``lightning.Trainer`` takes; ``enable_model_summary`` is off by default.

    Raises:
        UserError: a number that nothing can be trained with.
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
        check_at_least(-1, max_steps=max_steps)
        check_at_least(0, log_every_n_steps=log_every_n_steps, gradient_clip_val=kwargs.get("gradient_clip_val"))
        check_at_least(1, accumulate_grad_batches=kwargs.get("accumulate_grad_batches"))
        root = Path(default_root_dir or "runs/run")
        callbacks = [callbacks] if isinstance(callbacks, L.Callback) else list(callbacks or [])
        defaults = [RunCheckpoint(), SampleGrid(), Throughput(), HyperParameters()]
        if kwargs.get("enable_progress_bar") is not False:
            bar = sys.stdout.isatty() or any(isinstance(each, ProgressBar) for each in callbacks)
            defaults.append(StepsBar(leave=True) if bar else ProgressLines())
            kwargs["enable_progress_bar"] = bar
        if kwargs.get("enable_checkpointing") is False:
            defaults = defaults[1:]
        kinds = tuple(ProgressBar if isinstance(c, ProgressBar) else type(c) for c in callbacks)
        callbacks += [default for default in defaults if not isinstance(default, kinds)]
        for callback in callbacks:
            if isinstance(callback, RunCheckpoint) and callback.dirpath is None:
                callback.dirpath = os.fspath(root / "checkpoints")
        if kwargs.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False
        plugins = [plugins] if plugins is not None and not isinstance(plugins, list) else plugins or []
        with without_notes():
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

    fit = quietly(L.Trainer.fit)
    validate = quietly(L.Trainer.validate)
