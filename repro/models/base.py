"""What all training modes share: numbered sampling, progress in images, checkpoints that rebuild themselves."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from repro.denoisers import Denoiser, GuidedDenoiser
from repro.denoisers.guided import check_guidance
from repro.errors import UserError
from repro.images import to_uint8
from repro.noise import NoiseStream
from repro.registry import Plugin, record_of
from repro.samplers.base import Sampler

__all__ = ["FORMAT", "GenerativeModule", "RecordedModule", "fingerprint_of", "seed_step"]

FORMAT = 1


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


def fingerprint_of(model: nn.Module) -> str:
    """SHA-256 over the settings of a recorded model and every weight."""
    digest = hashlib.sha256(json.dumps(record_of(model), sort_keys=True).encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class RecordedModule(L.LightningModule, Plugin):
    """Base of the Lightning modules: progress in images, and checkpoints that rebuild the model by themselves.

    One that can be trained defines ``training_step`` and ``configure_optimizers``.

    Attributes:
        trainable: Whether ``repro fit`` makes sense.
        image_shape: (C, H, W).
        num_classes: Number of classes that labels may name; 0 for an unconditional model.
        images_seen: Training images so far, over all processes: the one measure of progress.
        origin: Where the weights came from (a path and which weights), for manifests.
        data_record: Plain record of the training data, or None when they are not known.
        data_fingerprint: Hash of the training images, empty when they are not known.
    """

    trainable: ClassVar[bool] = True
    image_shape: tuple[int, int, int]
    num_classes: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.images_seen = 0
        self.origin: str | None = None
        self.data_record: dict[str, Any] | None = None
        self.data_fingerprint = ""

    @property
    def next_command(self) -> str:
        """What a user types after training; ``{run}`` stands for the run's folder."""
        return "repro validate --ckpt_path {run}"

    def use_raw_weights(self) -> None:
        """Works from now on with the weights of the last step instead of their average."""
        raise UserError(f"{type(self).__name__} keeps no averaged weights; leave out weights='raw'")

    def fingerprint(self) -> str:
        """SHA-256 over the model's settings and every weight."""
        return fingerprint_of(self)

    def on_fit_start(self) -> None:
        """Remembers the training data."""
        data = self.trainer.datamodule
        if data is not None:
            self.data_record, self.data_fingerprint = record_of(data), data.fingerprint()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the plain record that rebuilds the model without a command line."""
        checkpoint["repro"] = {
            "format": FORMAT,
            "model": record_of(self),
            "data": self.data_record,
            "data_fingerprint": self.data_fingerprint,
            "images_seen": self.images_seen,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes progress and training data back."""
        record = checkpoint["repro"]
        self.images_seen = record["images_seen"]
        self.data_record, self.data_fingerprint = record["data"], record["data_fingerprint"]


class GenerativeModule(RecordedModule):
    """Base of the modules that make image i out of noise i; one of them defines :meth:`generate`.

    Attributes:
        sampler: How images are drawn, or None for models that need no sampler.
        guidance: Scale of classifier-free guidance under which labelled images are drawn; 1 is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sampler: Sampler | None = None
        self.guidance = 1.0
        self.scores: Any = None

    @property
    def next_command(self) -> str:
        """Draws a bank."""
        return "repro predict --ckpt_path {run} --seeds 0-999"

    @abstractmethod
    def generate(self, noise: NoiseStream, labels: Tensor | None = None) -> Tensor:
        """Images of numbered noises.

        Args:
            noise: The stream of the wanted seeds, at its start.
            labels: Class numbers, int64 (n,), or None.

        Returns:
            Float images, about [-1, 1], shape (n, C, H, W).
        """

    def sample(self, seeds: Iterable[int], labels: Tensor | None = None) -> Tensor:
        """Images of the seeds, uint8 (n, C, H, W), on the CPU.

        Raises:
            UserError: labels for an unconditional model, none for a conditional one, or a label outside the classes.
        """
        self.check_labels(labels)
        return to_uint8(self.generate(NoiseStream(seeds), labels)).cpu()

    def check_labels(self, labels: Tensor | None) -> None:
        """Raises UserError when the labels do not fit the model."""
        if labels is None:
            if self.num_classes and not self.takes_no_labels:
                raise UserError(f"the model has {self.num_classes} classes; give a label each (--task conditional)")
        elif not self.num_classes:
            raise UserError("labels were given to an unconditional model; drop them (--task unconditional)")
        elif len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
            raise UserError(f"label {wrong} is outside the model's classes 0 to {self.num_classes - 1}")

    @property
    def conditions(self) -> dict[str, Any]:
        """What the images of two models must have in common, besides noise and labels, to be compared; plain data."""
        return {}

    @property
    def takes_no_labels(self) -> bool:
        """Whether a model with classes also samples without labels (it has learnt a null class)."""
        return False

    def sampler_record(self) -> dict[str, Any] | None:
        """The plain record of the sampler, for manifests; None for models that need none."""
        return record_of(self.sampler) if self.sampler is not None else None

    def use_sampler(self, sampler: Sampler) -> None:
        """Draws from now on with another sampler."""
        if self.sampler is None:
            raise UserError(f"{type(self).__name__} samples in one pass; it takes no sampler")
        self.sampler = sampler

    def use_guidance(self, scale: float) -> None:
        """Draws labelled images from now on under classifier-free guidance; see :class:`GuidedDenoiser`.

        Args:
            scale: 1 is no guidance.

        Raises:
            UserError: a negative scale, or a model that cannot be guided.
        """
        self.guidance = check_guidance(scale)
        if scale == 1:
            return
        given = f"guidance is {scale:g}, but"
        if self.sampler is None or self.sampler.consistency:
            raise UserError(f"{given} {type(self).__name__} draws in one pass, which cannot be guided; leave it out")
        fit = "repro fit --task conditional --model.network.label_dropout 0.1"
        if not self.num_classes:
            raise UserError(f"{given} the model was trained without labels; leave it out, or train one that has: {fit}")
        if not self.takes_no_labels:
            raise UserError(
                f"{given} the model has no null class, because it was trained without label dropout; leave it out, or "
                f"train one that has: {fit}"
            )

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """A denoiser of this model as images are drawn with it: under guidance, if there is any."""
        return denoiser if self.guidance == 1 else GuidedDenoiser(denoiser, self.guidance)

    def _draw(self, batch: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor, Tensor | None]:
        seeds, labels = batch
        repeats = 1 if labels is None else len(labels) // len(seeds)
        return seeds, self.sample(seeds.repeat_interleave(repeats).tolist(), labels), labels

    def test_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> None:
        """Draws the images of a batch of (seeds, labels) and gives them to the task's scores."""
        self.scores.update(*self._draw(batch))

    def on_test_epoch_end(self) -> None:
        """Logs the scores."""
        self.log_dict(self.scores.compute())

    def predict_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws the images of a batch of (seeds, labels): (seeds, uint8 images, labels)."""
        return self._draw(batch)
