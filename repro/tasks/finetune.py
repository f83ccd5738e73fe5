"""Fine-tuning as a task: the model draws as it did before, with or without classes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from repro.models.base import GenerativeModule
from repro.tasks.base import Conditional

__all__ = ["Finetune"]


class Finetune(Conditional):
    """What a fine-tuned model draws: one image a noise, or one a noise and class where its start has classes."""

    name = "finetune"
    mode: ClassVar[str] = "FineTuning"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        return classes if start else 0

    def check(self, module: GenerativeModule) -> None:
        if module.num_classes or self.classes:
            super().check(module)

    def fits(self, num_classes: int, mode: str = "") -> bool:
        return mode == self.mode

    def images_per_seed(self, module: GenerativeModule) -> int:
        return super().images_per_seed(module) if module.num_classes else 1

    def labels_record(self, module: GenerativeModule) -> dict[str, Any] | None:
        return super().labels_record(module) if module.num_classes else None

    def labels(self, module: GenerativeModule, seeds: Tensor) -> Tensor | None:
        return super().labels(module, seeds) if module.num_classes else None
