"""Tasks: what is drawn for noise i, whatever the family of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from repro.errors import UserError
from repro.modules.base import GenerativeModule
from repro.registry import Plugin

__all__ = ["Task"]


class Task(Plugin, ABC):
    """Base of the tasks.

    Attributes:
        name: The task's registered name, as in ``--task NAME``.
    """

    name: ClassVar[str]

    @abstractmethod
    def num_classes(self, classes: int) -> int:
        """Classes of a network for this task, when the data have ``classes`` of them."""

    @abstractmethod
    def check(self, module: GenerativeModule) -> None:
        """Raises UserError when the task cannot be done with the model."""

    def images_per_seed(self, module: GenerativeModule) -> int:
        """Images that are drawn for each noise."""
        return 1

    def labels(self, module: GenerativeModule, seeds: Tensor) -> Tensor | None:
        """Class of each image drawn for some seeds, the images of one noise side by side; None without classes."""
        return None


class Unconditional(Task):
    """One image a noise, without labels."""

    name = "unconditional"

    def num_classes(self, classes: int) -> int:
        return 0

    def check(self, module: GenerativeModule) -> None:
        if module.num_classes and not module.takes_no_labels:
            raise UserError(
                f"the model was trained with {module.num_classes} classes and cannot sample without a label; "
                "use --task conditional"
            )


class Conditional(Task):
    """One image a noise and class: noise i under class 0, 1, 2, ..."""

    name = "conditional"

    def num_classes(self, classes: int) -> int:
        if not classes:
            raise UserError("--task conditional needs data with classes; these have none")
        return classes

    def check(self, module: GenerativeModule) -> None:
        if not module.num_classes:
            raise UserError("the model was trained without labels; use --task unconditional, or fit --task conditional")

    def images_per_seed(self, module: GenerativeModule) -> int:
        return module.num_classes

    def labels(self, module: GenerativeModule, seeds: Tensor) -> Tensor:
        return torch.arange(module.num_classes).repeat(len(seeds))
