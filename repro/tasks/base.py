"""Tasks: what is drawn for noise i, whatever the family of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank, format_seeds
from repro.errors import UserError
from repro.inverse.problem import Problem
from repro.models.base import GenerativeModule
from repro.noise import parse_seeds
from repro.registry import Plugin

__all__ = ["Task"]


class Task(Plugin, ABC):
    """Base of the tasks.

    Attributes:
        name: The task's registered name, as in ``--task NAME``.
        trains: Whether models are trained for the task, or those of other tasks serve.
        mode: Name of the one training mode that serves the task; None where any does.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = True
    mode: ClassVar[str | None] = None

    @abstractmethod
    def num_classes(self, classes: int, start: int | None = None) -> int:
        """Classes of a network for this task.

        Args:
            classes: Those of the data.
            start: Those of the model that it is trained from, or None.
        """

    @abstractmethod
    def check(self, module: GenerativeModule) -> None:
        """Raises UserError when the task cannot be done with the model."""

    def fits(self, num_classes: int, mode: str = "") -> bool:
        """Whether a finished run of a model with so many classes, of this training mode, is one to look for."""
        return num_classes == 0

    def choose_classes(self, classes: str) -> None:
        """Draws these classes only.

        Args:
            classes: Such as ``0-4,7``.

        Raises:
            UserError: the task draws no classes, or the text names none.
        """
        raise UserError(f"classes are {classes}, but --task {self.name} draws none; leave them out")

    def settle_sampler(self, module: GenerativeModule) -> None:
        """Puts another sampler in the place of the model's own where the task cannot use that."""

    def prepare(self, module: GenerativeModule, problem: Problem) -> None:
        """Makes the model ready to draw; first of all :meth:`check`.

        Raises:
            UserError: the task cannot be done with the model, or it has no use for the problem.
        """
        self.check(module)
        if problem != Problem():
            raise UserError(f"--problem is for inverse tasks, such as inpaint; --task {self.name} measures nothing")

    def record(self, module: GenerativeModule) -> dict[str, Any]:
        """What two banks of this task must have in common to be compared, as plain data."""
        return dict(module.conditions)

    def references(self, module: GenerativeModule, seeds: Sequence[int]) -> dict[str, Bank]:
        """Banks that every model is compared with."""
        return {}

    def metrics(self, module: GenerativeModule) -> dict[str, Metric]:
        """Further scores, of two sets of uint8 images each."""
        return {}

    def columns(self, module: GenerativeModule, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Pictures that stand beside the drawn ones in a grid: uint8 (n, C, H, W) each."""
        return {}

    def images_per_seed(self, module: GenerativeModule) -> int:
        """Images that are drawn for each noise."""
        return 1

    def labels_record(self, module: GenerativeModule) -> dict[str, Any] | None:
        """What a bank's manifest says about labels; None for a bank without."""
        return None

    def labels(self, module: GenerativeModule, seeds: Tensor) -> Tensor | None:
        """Class of each image drawn for some seeds, the images of one noise side by side; None without classes."""
        return None


class Unconditional(Task):
    """One image a noise, without labels."""

    name = "unconditional"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        return 0

    def check(self, module: GenerativeModule) -> None:
        if module.num_classes and not module.takes_no_labels:
            raise UserError(
                f"the model was trained with {module.num_classes} classes and cannot sample without a label; "
                "use --task conditional"
            )


class Conditional(Task):
    """One image a noise and class: noise i under class 0, 1, 2, ..., or under chosen classes."""

    name = "conditional"

    def __init__(self) -> None:
        self.classes: list[int] | None = None

    def num_classes(self, classes: int, start: int | None = None) -> int:
        if not classes:
            raise UserError(
                "--task conditional needs data with classes; these have none: name other data, or type "
                "--task unconditional"
            )
        return classes

    def check(self, module: GenerativeModule) -> None:
        if not module.num_classes:
            raise UserError("the model was trained without labels; use --task unconditional, or fit --task conditional")
        highest = max(self.classes or [0])
        if highest >= module.num_classes:
            raise UserError(f"class {highest} is outside the model's classes 0 to {module.num_classes - 1}")

    def choose_classes(self, classes: str) -> None:
        try:
            self.classes = parse_seeds(classes)
        except UserError as error:
            raise UserError(
                f"cannot read classes {classes!r}; write a range or a list, such as 0-4 or 0,3,8"
            ) from error

    def fits(self, num_classes: int, mode: str = "") -> bool:
        return num_classes > 0

    def images_per_seed(self, module: GenerativeModule) -> int:
        return module.num_classes if self.classes is None else len(self.classes)

    def labels_record(self, module: GenerativeModule) -> dict[str, Any]:
        record = {"num_classes": module.num_classes, "images_per_seed": self.images_per_seed(module)}
        return record if self.classes is None else record | {"classes": format_seeds(self.classes)}

    def labels(self, module: GenerativeModule, seeds: Tensor) -> Tensor:
        return torch.tensor(self.classes or range(module.num_classes)).repeat(len(seeds))
