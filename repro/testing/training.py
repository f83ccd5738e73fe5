"""Laws of training modes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators.cpu import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from repro.testing.devices import Waits, WithoutWaiting
from repro.training.base import TrainingModule
from repro.training.callbacks import ProgressLines, Throughput

__all__ = ["check_training"]

_STEPS = 7
_BATCH = 4


def check_training(build: Callable[[], TrainingModule], **trainer: Any) -> None:
    """Checks training steps under a trainer, on the meta device: all tensors are there, the host never waits for it.

    The batches come from the host. The first step is logged, and may look at what it likes; the others, with the copy
    of their batch, backward pass, optimiser and averages, may not make the host wait.

    Args:
        build: Makes a small training module.
        **trainer: Further arguments of ``lightning.Trainer``.

    Raises:
        AssertionError: a tensor was left on the CPU, or the host waited in a step that is not logged.
    """
    module = build()
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(_BATCH) % max(module.num_classes, 1)
    batches = [_images(module, generator) for _ in range(_STEPS)]
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        _Trainer(
            strategy=_OnMeta(torch.device("meta"), accelerator=_Meta()),
            max_steps=_STEPS,
            log_every_n_steps=10 * _STEPS,
            callbacks=[Throughput(), ProgressLines(), watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            **trainer,
        ).fit(module, DataLoader([(images, labels) for images in batches], batch_size=None))
    assert watch.steps == _STEPS, f"{watch.steps} steps of {_STEPS} were taken"
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        assert value.device.type == "meta", f"{name} is on {value.device}, not on the device of the module"


def _images(module: TrainingModule, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (_BATCH, *module.image_shape), generator=generator).to(torch.uint8)


class _Trainer(L.Trainer):
    """Leaves everything where it was trained: there are no values to bring to the host."""

    def _teardown(self) -> None:
        """Does nothing."""


class _Meta(CPUAccelerator):
    """Lets Lightning train on the meta device, which has shapes and no values."""

    def setup_device(self, device: torch.device) -> None:
        """Takes the device as it is."""


class _OnMeta(SingleDeviceStrategy):
    """Trains on the meta device, where there are no numbers to add up."""

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """Gives a number that is not 0, of how many batches there are, which is all that is asked for."""
        return torch.ones_like(tensor, device="cpu")


class _Watch(L.Callback):
    """Counts waits in the first step, and refuses them between its end and that of the last."""

    def __init__(self) -> None:
        self.steps = 0
        self._mode: Waits | None = None

    def on_train_start(self, *_: Any) -> None:
        """Begins to count."""
        self._change(Waits())

    def on_train_batch_end(self, *_: Any) -> None:
        """Begins to refuse after the first step, ends with the last."""
        self.steps += 1
        if self.steps == 1:
            self._change(WithoutWaiting())
        if self.steps == _STEPS:
            self._change(None)

    def on_exception(self, *_: Any) -> None:
        """Ends where a step failed."""
        self._change(None)

    def _change(self, mode: Waits | None) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
        self._mode = mode
        if mode is not None:
            mode.__enter__()
