"""Tasks: what is drawn for noise i, whatever the family of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank, format_seeds
from repro.errors import UserError, unknown
from repro.models.base import Model
from repro.noise import parse_seeds
from repro.registry import Plugin
from repro.samplers.base import Sampler

__all__ = ["Conditional", "Plan", "Task", "Unconditional"]


@dataclass(frozen=True)
class Plan:
    """What one task draws from one model: settled, checked, and changed by nobody.

    Attributes:
        task: Name of the task.
        sampler: What draws in place of the model's own sampler, or None.
        guidance: Scale of classifier-free guidance that is asked for; 1 is none.
        classes: Classes that every noise is drawn under, in their order; None draws without labels.
        labels_record: What a bank's manifest says about labels; None for a bank without.
        record: What two banks of this task must have in common to be compared, as plain data.
        trained_for: Whether models are trained for the task, so that what they draw may be copies of training images.
    """

    task: str
    sampler: Sampler | None = None
    guidance: float = 1.0
    classes: tuple[int, ...] | None = None
    labels_record: dict[str, Any] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    trained_for: bool = True

    @property
    def images_per_seed(self) -> int:
        """Images that are drawn for each noise."""
        return 1 if self.classes is None else len(self.classes)

    def labels(self, count: int) -> Tensor | None:
        """Class of each image of so many noises, the images of one noise side by side; None without classes."""
        return None if self.classes is None else torch.tensor(self.classes).repeat(count)

    def references(self, seeds: Sequence[int]) -> dict[str, Bank]:
        """Returns banks that every model is compared with."""
        return {}

    def metrics(self) -> dict[str, Metric]:
        """Returns further scores, of two sets of uint8 images each."""
        return {}

    def columns(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Pictures that stand beside the drawn ones in a grid: uint8 (n, C, H, W) each."""
        return {}


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
        """Returns classes of a network for this task.

        Args:
            classes: Those of the data.
            start: Those of the model that it is trained from, or None.
        """

    def fits(self, num_classes: int, mode: str = "") -> bool:
        """Says whether a finished run of a model with so many classes, of this training mode, is one to look for."""
        return num_classes == 0

    def plan(
        self,
        model: Model,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
        classes: str | None = None,
        problem: object | None = None,
    ) -> Plan:
        """Settles what is drawn from a model; the model is not changed.

        Args:
            model: The model.
            sampler: Draws in place of the model's own.
            guidance: Scale of classifier-free guidance; 1 is none.
            classes: Which classes are drawn, such as ``0-4,7`` or ``dog,cat``; by default all.
            problem: What an inverse task measures.

        Raises:
            UserError: the task cannot be done with the model, or has no use for one of the arguments.
        """
        if problem is not None:
            raise UserError(f"--problem is for inverse tasks, such as inpaint; --task {self.name} measures nothing")
        model.check_drawing(sampler, guidance)
        chosen = self.classes_of(model, classes)
        if guidance != 1 and chosen is None:
            raise without_labels(self.name, guidance)
        record: dict[str, Any] | None = None
        if chosen is not None:
            record = {"num_classes": model.num_classes, "images_per_seed": len(chosen)}
            record |= {} if classes is None else {"classes": format_seeds(chosen)}
            record |= {"class_names": list(model.class_names)} if model.class_names else {}
        return Plan(self.name, sampler, guidance, chosen, record, dict(model.conditions))

    @abstractmethod
    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...] | None:
        """Returns classes that each noise of a model is drawn under, or None without labels.

        Raises:
            UserError: the task cannot be done with the model, or not with these classes.
        """


def without_labels(task: str, guidance: float) -> UserError:
    """Returns the error for guidance of a task that draws without labels."""
    return UserError(
        f"guidance is {guidance:g}, but --task {task} draws without labels; leave it out, or type --task conditional"
    )


class Unconditional(Task):
    """One image a noise, without labels."""

    name = "unconditional"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        """Returns 0: the network takes no labels."""
        return 0

    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...] | None:
        """Returns None: nothing is drawn under a label."""
        if classes is not None:
            raise UserError(f"classes are {classes}, but --task {self.name} draws none; leave them out")
        if model.num_classes and not model.takes_no_labels:
            raise UserError(
                f"the model was trained with {model.num_classes} classes and cannot sample without a label; "
                "use --task conditional"
            )
        return None


class Conditional(Task):
    """One image a noise and class: noise i under class 0, 1, 2, ..., or under chosen classes."""

    name = "conditional"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        """As many classes as the data have."""
        if not classes:
            raise UserError(
                "--task conditional needs data with classes; these have none: name other data, or type "
                "--task unconditional"
            )
        return classes

    def fits(self, num_classes: int, mode: str = "") -> bool:
        """Says whether the model has classes."""
        return num_classes > 0

    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...] | None:
        """Returns all classes of the model, or the chosen ones."""
        if not model.num_classes:
            raise UserError("the model was trained without labels; use --task unconditional, or fit --task conditional")
        if classes is None:
            return tuple(range(model.num_classes))
        names = [name.strip() for name in classes.split(",")]
        if set(names) <= set(model.class_names):  # a text that is a name is one before it is a number
            return tuple(model.class_names.index(name) for name in dict.fromkeys(names))
        try:
            chosen = parse_seeds(classes)
        except UserError as error:
            if model.class_names:
                other = next(each for each in names if each not in model.class_names)
                raise unknown("class", other, model.class_names, "or their numbers") from error
            raise UserError(
                f"cannot read classes {classes!r}; write a range or a list, such as 0-4 or 0,3,8"
            ) from error
        if max(chosen) >= model.num_classes:
            raise UserError(f"class {max(chosen)} is outside the model's classes 0 to {model.num_classes - 1}")
        return tuple(chosen)
