"""A part of a training that has a say at its beginning and in its checkpoints, such as a teacher or a start."""

from __future__ import annotations

from typing import Any

import lightning as L

__all__ = ["Part"]


class Part:
    """Base of the parts of training modes; every method may be left as it is."""

    def setup(self, module: L.LightningModule) -> None:
        """Reads and checks what the part needs, before anything is trained.

        Raises:
            UserError: it cannot be had, or does not fit the module or its data.
        """

    def begin(self, module: L.LightningModule) -> None:
        """Acts on the module once its checkpoint, if there is one, has been loaded."""

    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps of the part, as plain data."""
        return {}

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Goes on from what :meth:`progress` gave."""
