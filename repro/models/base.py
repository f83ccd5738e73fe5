"""The contract of models: plain modules that a record and weights rebuild, and that draw image i from noise i."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.denoisers.guided import check_guidance
from repro.errors import UserError
from repro.images import to_uint8
from repro.noise import NoiseStream
from repro.records import record_of
from repro.registry import Plugin
from repro.samplers.base import Sampler

__all__ = ["Model", "Recorded", "fingerprint_of"]


def fingerprint_of(model: nn.Module) -> str:
    """Hashes the settings of a recorded model and every weight: SHA-256, 64 hexadecimal digits."""
    record = record_of(model)
    if record["group"] == "models":  # the group was "modules" when the first banks named their models by this hash
        record = record | {"group": "modules"}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        add_tensor(digest, name, tensor)
    return digest.hexdigest()


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Feeds a tensor's name, type, shape and bytes to a hash."""
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.flatten().view(torch.uint8).numpy().data)


class Recorded(nn.Module, Plugin):
    """Base of everything that a checkpoint rebuilds: constructor arguments are its record, the state dict its weights.

    Attributes:
        image_shape: (C, H, W).
        num_classes: Number of classes that labels may name; 0 for an unconditional model.
        origin: Where the weights came from (a path and which weights), for manifests; None for a new model.
        data_record: Plain record of the training data, or None when they are not known.
        data_fingerprint: Hash of the training images, empty when they are not known.
        class_names: Names of the classes in the order of their numbers, empty where they are but these.
        former_fingerprint: What :meth:`fingerprint` was under the first format of checkpoints, for a model that was
            read from one; banks of that time name their model by it.
    """

    image_shape: tuple[int, int, int]
    num_classes: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.origin: str | None = None
        self.data_record: dict[str, Any] | None = None
        self.data_fingerprint = ""
        self.class_names: tuple[str, ...] = ()
        self.former_fingerprint = ""

    @property
    def next_command(self) -> str:
        """What a user types once the model is trained; ``{run}`` stands for the run's folder."""
        return "repro validate --ckpt_path {run}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie; the CPU for a model without any."""
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def fingerprint(self) -> str:
        """Hashes the model's settings and every weight: SHA-256, 64 hexadecimal digits."""
        return fingerprint_of(self)


class Model(Recorded):
    """Base of the models that make image i out of noise i; one of them defines :meth:`generate`.

    How images are drawn (sampler, guidance) is an argument of drawing, not a state of the model: two drawings from one
    model never disturb each other.

    Attributes:
        sampler: The model's own sampler, used unless another one is given; None for models that need no sampler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sampler: Sampler | None = None

    @property
    def next_command(self) -> str:
        """What a user types once the model is trained: draws a bank."""
        return "repro predict --ckpt_path {run} --seeds 0-999"

    @abstractmethod
    def generate(
        self,
        noise: NoiseStream,
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws float images, about [-1, 1], shape (n, C, H, W), from numbered noises.

        Args:
            noise: The stream of the wanted seeds, at its start.
            labels: Class numbers, int64 (n,), or None.
            sampler: Draws in place of the model's own; only for models that have one.
            guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none.
        """

    def sample(
        self,
        seeds: Iterable[int],
        labels: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draws uint8 images (n, C, H, W), on the CPU, from seeds; the arguments are those of :meth:`generate`.

        Raises:
            UserError: labels for an unconditional model, none for a conditional one, a label outside the classes, an
                image that is not finite, or as :meth:`check_drawing`.
        """
        self.check_labels(labels)
        self.check_drawing(sampler, guidance)
        noise = NoiseStream(seeds)
        images = self.generate(noise, labels, sampler, guidance)
        self._check_finite(images, noise.seeds)
        return to_uint8(images).cpu()

    def _check_finite(self, images: Tensor, seeds: Sequence[int]) -> None:
        """Raises UserError when an image holds NaN or infinity, naming its seed and the weights."""
        bad = [seed for seed, good in zip(seeds, images.isfinite().flatten(1).all(1).tolist(), strict=True) if not good]
        if not bad:
            return
        weights = [name for name, each in self.named_parameters() if not each.isfinite().all()]
        why = f"weight {weights[0]} is not finite" if weights else "its weights are finite; lower the guidance, if any"
        raise UserError(
            f"{len(bad)} of {len(seeds)} images are NaN or infinite (seeds {', '.join(map(str, bad[:3]))}"
            f"{', ...' if len(bad) > 3 else ''}), drawn from {self.origin or type(self).__name__}: {why}; nothing of "
            "them is kept"
        )

    def encode(
        self, images: Tensor, labels: Tensor | None = None, sampler: Sampler | None = None, guidance: float = 1.0
    ) -> Tensor:
        """Finds the noises, unit variance, float (n, C, H, W), that images are drawn from.

        Args:
            images: Floats, about [-1, 1], shape (n, C, H, W).
            labels: Class numbers, int64 (n,), or None.
            sampler: Walks back in place of the model's own.
            guidance: As for :meth:`generate`.

        Raises:
            UserError: a model that is no denoiser; else as :meth:`repro.samplers.Sampler.encode`.
        """
        raise UserError(f"{type(self).__name__} draws in one pass, so its images cannot be walked back to noises")

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

    def check_drawing(self, sampler: Sampler | None = None, guidance: float = 1.0) -> None:
        """Raises UserError when the model cannot be drawn from with this sampler or scale of guidance."""
        if sampler is not None and self.sampler is None:
            raise UserError(f"{type(self).__name__} samples in one pass; it takes no sampler")
        if check_guidance(guidance) == 1:
            return
        chosen, asked = sampler or self.sampler, f"guidance is {guidance:g}, but"
        if chosen is None or chosen.consistency:
            raise UserError(f"{asked} {type(self).__name__} draws in one pass, which cannot be guided; leave it out")
        fit = "repro fit --task conditional --model.network.label_dropout 0.1"
        if not self.num_classes:
            raise UserError(f"{asked} the model was trained without labels; leave it out, or train one that has: {fit}")
        if not self.takes_no_labels:
            raise UserError(
                f"{asked} the model has no null class, because it was trained without label dropout; leave it out, or "
                f"train one that has: {fit}"
            )

    @property
    def conditions(self) -> dict[str, Any]:
        """What the images of two models must have in common, besides noise and labels, to be compared; plain data."""
        return {}

    @property
    def takes_no_labels(self) -> bool:
        """True: a model with classes also samples without labels (it has learnt a null class)."""
        return False

    def guidance_of(self, scale: float) -> float:
        """Returns scale of guidance that images are really drawn under when this one is asked for."""
        return scale

    def sampler_record(self, sampler: Sampler | None = None) -> dict[str, Any] | None:
        """The plain record of a sampler, by default the model's own, for manifests; None for models without one."""
        chosen = sampler or self.sampler
        return None if chosen is None else record_of(chosen)
