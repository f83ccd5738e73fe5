"""Fine-tuning as a task: the model draws as it did before, with or without classes."""

from __future__ import annotations

from typing import ClassVar

from repro.models.base import Model
from repro.tasks.base import Conditional

__all__ = ["Finetune"]


class Finetune(Conditional):
    """What a fine-tuned model draws: one image a noise, or one a noise and class where its start has classes."""

    name = "finetune"
    mode: ClassVar[str] = "FineTuning"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        """As many classes as the data have where the start has classes, else 0."""
        return classes if start else 0

    def fits(self, num_classes: int, mode: str = "") -> bool:
        """Says whether the run was a fine-tuning."""
        return mode == self.mode

    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...] | None:
        """Returns the chosen classes of a model that has some; None for one without."""
        return super().classes_of(model, classes) if model.num_classes or classes is not None else None
