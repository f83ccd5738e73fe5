"""A drawing: which images of which model, as one frozen value that knows its record, its name and its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from repro import registry
from repro.banks.manifest import Manifest, format_seeds
from repro.errors import UserError
from repro.inverse.problem import Problem
from repro.models.base import Model
from repro.noise import parse_seeds
from repro.records import record_of
from repro.samplers.base import Sampler
from repro.tasks.base import Plan

__all__ = ["Drawing"]

_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The images that numbered noises give under one model, task, sampler and guidance.

    Everything is checked when it is made, before anything is drawn, and the model is not changed.

    Args:
        model: What draws.
        seeds: Which noises, such as ``0-9999``, or a list of numbers.
        task: Name of what is drawn for each noise; by default ``conditional`` for a model with classes, else
            ``unconditional``.
        sampler: Draws in place of the model's own.
        guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none.
        classes: Which classes a conditional model draws, for example ``0-4,7``; by default all.
        problem: What an inverse task measures.

    Attributes:
        numbers: The seeds as numbers.
        plan: What the task settles for this model.

    Raises:
        UserError: bad seeds, or a task that cannot be done so with the model.

    Example:
        >>> from repro.models.gan import GANModel
        >>> drawing = Drawing(model=GANModel(8, 1, width=4, latent=16), seeds="0-9")
        >>> drawing.label, drawing.images([3, 4])[0].shape
        ('unconditional_0-9', torch.Size([2, 1, 8, 8]))
    """

    model: Model
    seeds: Sequence[int] | str
    task: str | None = None
    sampler: Sampler | None = None
    guidance: float = 1.0
    classes: str | None = None
    problem: Problem | None = None
    numbers: tuple[int, ...] = field(init=False)
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise UserError(f"a {type(self.model).__name__} draws no images; name a model that does")
        object.__setattr__(self, "numbers", tuple(parse_seeds(self.seeds)))
        task = registry.load("tasks", self.task or ("conditional" if self.model.num_classes else "unconditional"))()
        problem = None if self.problem == Problem() else self.problem
        plan = task.plan(self.model, self.sampler, self.guidance, self.classes, problem)
        object.__setattr__(self, "plan", plan)

    @property
    def kind(self) -> str:
        """The task's name, with a short hash of what it measures, the scale of guidance and the chosen classes."""
        parts, scale = [self.plan.task], self.model.guidance_of(self.guidance)
        if self.plan.record:
            parts.append(hashlib.sha256(json.dumps(self.plan.record).encode()).hexdigest()[:8])
        if scale != 1:
            parts.append(f"guidance{scale:g}")
        if chosen := (self.plan.labels_record or {}).get("classes"):
            parts.append(f"classes{chosen[:_NAME]}")
        return "-".join(parts)

    @property
    def label(self) -> str:
        """Name of the bank's folder: :attr:`kind` and the seeds."""
        return f"{self.kind}_{format_seeds(self.numbers)[:_NAME]}"

    def folder(self, run: Path) -> Path:
        """Says where the bank of a run's model lies."""
        return run / "banks" / self.label

    def manifest(self) -> Manifest:
        """Makes the manifest of the bank that this drawing fills."""
        model, plan = self.model, self.plan
        record = record_of(model)
        return Manifest(
            seeds=list(self.numbers),
            image_shape=model.image_shape,
            model=record,
            model_fingerprint=model.fingerprint(),
            source=model.origin or "",
            sampler=model.sampler_record(plan.sampler),
            kernel=record["args"].get("kernel"),
            task=plan.task,
            guidance=model.guidance_of(plan.guidance),
            labels=plan.labels_record,
            data=model.data_record,
            data_fingerprint=model.data_fingerprint,
            extra=plan.record,
        )

    @torch.inference_mode()
    def images(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Draws some of the seeds: uint8 images (n k, C, H, W) on the CPU, k a seed, and their labels or None."""
        plan, labels = self.plan, self.plan.labels(len(seeds))
        numbers = torch.tensor(seeds, dtype=torch.int64).repeat_interleave(plan.images_per_seed).tolist()
        return self.model.sample(numbers, labels, plan.sampler, plan.guidance), labels
