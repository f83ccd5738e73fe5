"""Learning from a teacher: a denoiser that answers under the student's kernel, and is the same one after a resume."""

from __future__ import annotations

from typing import Any

import torch

from repro.denoisers import Denoiser, NetworkDenoiser
from repro.errors import UserError
from repro.training.base import Part, TrainingModule
from repro.training.source import Source, check_data, sizes

__all__ = ["Teaching"]


class Teaching(Part):
    """The teacher of a training module.

    The teacher is read where it is first needed: by the module's constructor when the student takes something from it,
    else as training begins. It is no module, so its weights are in no checkpoint of the student.

    Args:
        source: Where it comes from.
        compiles: Whether to compile its network before training.
    """

    def __init__(self, source: Source, compiles: bool) -> None:
        self.source, self.compiles, self.fingerprint = source, compiles, ""
        self._seen: tuple[torch.device, Denoiser] | None = None

    def of(self, module: TrainingModule) -> Denoiser:
        """Gives the teacher under the student's kernel, on the student's device.

        Raises:
            UserError: it cannot be read, or knows fewer noise levels.
        """
        if self._seen is None or self._seen[0] != module.device:
            with torch.inference_mode(False):
                denoiser = self.source.under(module.trained.kernel).to(module.device)
                if module.channels_last:
                    denoiser = denoiser.to(memory_format=torch.channels_last)
            self._seen = (module.device, denoiser)
        return self._seen[1]

    def check(self, module: TrainingModule) -> None:
        """Raises UserError when the teacher cannot be read or answers for other images, classes or noise levels."""
        teacher = self.of(module)
        for what, theirs, ours in (
            ("images", sizes(teacher.image_shape), sizes(module.image_shape)),
            ("classes", teacher.num_classes, module.num_classes),
        ):
            if theirs != ours:
                raise UserError(
                    f"the teacher has {what} {theirs}, the student {ours}; leave the network out to take the "
                    "teacher's, or name another teacher: --model.teacher PATH"
                )

    def setup(self, module: TrainingModule) -> None:
        """Reads and checks the teacher, against the data too; its fingerprint is taken before its weights move."""
        _ = self.source.fingerprint
        self.check(module)
        check_data("teacher", module, module.trainer.datamodule)
        if self.compiles and isinstance(self.source.denoiser, NetworkDenoiser):
            self.source.denoiser.network.compile()

    def begin(self, module: TrainingModule) -> None:
        """Refuses to go on under another teacher than before."""
        before, self.fingerprint = self.fingerprint, self.source.fingerprint
        if before not in ("", self.fingerprint):
            raise UserError(
                f"cannot resume: the weights or settings of teacher {self.source.origin} are not those that training "
                "began with; put the old ones back, or leave out --ckpt_path to start a new run"
            )

    def progress(self) -> dict[str, Any]:
        """Computes the fingerprint of the teacher, for the checkpoint."""
        return {"teacher_fingerprint": self.fingerprint}

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Restores the fingerprint of the teacher from a checkpoint."""
        self.fingerprint = progress["teacher_fingerprint"]
