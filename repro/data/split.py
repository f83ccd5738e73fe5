"""Which images of a set are trained on and which are held out: a pure function of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repro.data.order import subset_order
from repro.errors import UserError

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """The first images of a permutation to train on, and its last ones held out.

    Args:
        subset: N, how many to train on; None takes all that are not held out.
        subset_seed: Number of the permutation: subsets of one seed are nested.
        holdout: How many are never trained on.

    Raises:
        UserError: a number out of its range.

    Example:
        >>> train, held = Split(subset=3, holdout=2).indices(10)
        >>> len(train), len(held), set(train) & set(held)
        (3, 2, set())
    """

    subset: int | None = None
    subset_seed: int = 0
    holdout: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, subset=self.subset)
        check_at_least(0, subset_seed=self.subset_seed, holdout=self.holdout)

    def size(self, total: int, name: str = "the set") -> int:
        """How many images there are to train on.

        Args:
            total: Images of the whole set.
            name: What errors call it.

        Raises:
            UserError: the set is too small.
        """
        available = total - self.holdout
        if available < 1:
            raise UserError(f"holdout is {self.holdout} but {name} has {total} images; leave some to train on")
        if self.subset is not None and self.subset > available:
            held = f" of which {self.holdout} are held out" if self.holdout else ""
            raise UserError(f"subset is {self.subset} but {name} has {total} images{held}; give at most {available}")
        return available if self.subset is None else self.subset

    def indices(self, total: int, name: str = "the set") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the images to train on and of those held out, in their order; raises as :meth:`size`."""
        order = subset_order(self.subset_seed, total)
        return order[: self.size(total, name)], order[total - self.holdout :]


def check_at_least(least: int, **numbers: int | None) -> None:
    """Raises a UserError that names the first number below ``least``, or beyond 64 bits; None is no number."""
    for name, value in numbers.items():
        if value is not None and not least <= value < 2**63:
            raise UserError(f"{name} is {value}; give {'0, 1, 2, ...' if least == 0 else f'at least {least}'}")
