"""A task: what is drawn for noise i."""

from repro.errors import UserError
from repro.models import Model
from repro.tasks import Task

__all__ = ["FirstClass"]


class FirstClass(Task):
    """One image a noise, of class 0."""

    name = "first_class"

    def num_classes(self, classes: int, start: int | None = None) -> int:
        """Classes of a network for this task: those of the data."""
        return classes

    def fits(self, num_classes: int, mode: str = "") -> bool:
        """Whether a run's model is one to look for."""
        return num_classes > 0

    def classes_of(self, model: Model, classes: str | None) -> tuple[int, ...]:
        """Class 0 for every noise."""
        if classes is not None:
            raise UserError(f"--task first_class draws class 0; leave --classes {classes} out")
        if not model.num_classes:
            raise UserError("the model has no classes; use --task unconditional")
        return (0,)
