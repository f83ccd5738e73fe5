"""The images that another data set holds out, as training data: two sets of one kind with no image in common."""

from __future__ import annotations

from typing import Any

from repro.data.base import ImageData
from repro.data.source import ArraySource
from repro.errors import UserError

__all__ = ["HeldOut"]


class HeldOut(ImageData):
    """What a data set holds out, to train a second model on images that the first one never sees.

    A model of ``Digits`` with ``--data.holdout 898`` and one of ``HeldOut`` with ``--data.of Digits --data.of.holdout
    898`` have no image in common.

    Args:
        of: The data set that holds images out.
        common: As of every data set.

    Raises:
        UserError: a data set that holds out none.

    Example:
        >>> from repro.data.digits import Digits
        >>> len(HeldOut(Digits(holdout=898)))
        898
    """

    reaches_out = False  # beyond what the other set does

    def __init__(self, of: ImageData, **common: Any) -> None:
        super().__init__(**common)
        if not of.holdout:
            raise UserError(f"{type(of).__name__} holds out no image; give for example --data.of.holdout 1000")
        self.of, self.dtype, self.reaches_out = of, of.dtype, of.reaches_out

    def open_source(self) -> ArraySource:
        """Loads the held-out images."""
        return ArraySource(*self.of.held_out(), self.of.class_names)
