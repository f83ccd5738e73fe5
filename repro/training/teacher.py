"""Learning from a teacher: what modules with one share, and a student that starts as its copy and stands without it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from repro.denoisers import Denoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import Kernel
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler
from repro.training.diffusion import DenoiserModule
from repro.training.source import Source, check_data, sizes, taken_over

__all__ = ["DistillationModule", "Taught"]


class Taught:
    """What modules with a teacher share, to be put before a base that is a :class:`DenoiserModule`.

    The teacher is read where it is first needed: by the constructor when the student takes something from it, else as
    training begins.

    Attributes:
        takes_over_from: Name of the argument that says whose network the student takes.
    """

    takes_over_from: ClassVar[str] = "teacher"

    def learn_from(self, source: Source, copies: bool, compiles: bool) -> None:
        """Ends the constructor.

        Args:
            source: The teacher.
            copies: Whether the student's network is the teacher's, which is then checked at once.
            compiles: Whether to compile the teacher's network before training.

        Raises:
            UserError: as :meth:`check_teacher`.
        """
        self._source, self._compiles, self._teacher_fingerprint = source, compiles, ""
        if copies:
            self.check_teacher()

    @property
    def teacher(self) -> Denoiser:
        """The teacher under the student's kernel, on the student's device.

        Raises:
            UserError: it cannot be read, or does not fit.
        """
        found = self.__dict__.get("_teacher")
        if found is None or found[0] != self.device:
            with torch.inference_mode(False):
                denoiser = self._source.under(self.trained.kernel).to(self.device)
                if self.channels_last:
                    denoiser = denoiser.to(memory_format=torch.channels_last)
            found = self.__dict__["_teacher"] = (self.device, denoiser)
        return found[1]

    def check_teacher(self) -> None:
        """Raises UserError when the teacher cannot be read or answers for other images, classes or noise levels."""
        teacher = self.teacher
        for what, theirs, ours in (
            ("images", sizes(teacher.image_shape), sizes(self.image_shape)),
            ("classes", teacher.num_classes, self.num_classes),
        ):
            if theirs != ours:
                raise UserError(
                    f"the teacher has {what} {theirs}, the student {ours}; leave the network out to take the "
                    "teacher's, or name another teacher: --model.teacher PATH"
                )

    def setup(self, stage: str) -> None:
        """Reads and checks the teacher before training begins, against the data too."""
        super().setup(stage)
        if stage != "fit":
            return
        self.check_teacher()
        check_data("teacher", self, self.trainer.datamodule)
        if self._compiles and isinstance(self._source.denoiser, NetworkDenoiser):
            self._source.denoiser.network.compile()

    def on_fit_start(self) -> None:
        """Refuses to go on under another teacher than before."""
        super().on_fit_start()
        before, self._teacher_fingerprint = self._teacher_fingerprint, self._source.fingerprint
        if before not in ("", self._teacher_fingerprint):
            raise UserError(
                f"cannot resume: the weights or settings of teacher {self._source.given} are not those that training "
                "began with; put the old ones back, or leave out --ckpt_path to start a new run"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds which teacher it was."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["repro"]["teacher_fingerprint"] = self._teacher_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers which teacher it was."""
        super().on_load_checkpoint(checkpoint)
        self._teacher_fingerprint = checkpoint["repro"]["teacher_fingerprint"]


class DistillationModule(Taught, DenoiserModule):
    """Base of the modules that train a student network on the answers of a teacher.

    What is left out (None) is the teacher's: the network's settings, then with the teacher's averaged weights to start
    from, the kernel, and the parameterisation. The record names what was found, so a student's checkpoint is rebuilt
    without the teacher. A subclass takes ``teacher``, ``network`` and ``kernel`` under these names, passes them on,
    and asks :attr:`teacher` in its loss.

    Args:
        teacher: A denoiser, or the path of a checkpoint or a run.
        network: The student's network, or None.
        kernel: The student's kernel, or None.
        parameterization: What the student's output means, or None.
        sampler: How images are drawn from the student.
        **training: As for :class:`~repro.training.diffusion.DenoiserModule`.

    Raises:
        UserError: no teacher there, one without a network where the student's is left out, or settings that do not
            fit it.
    """

    def __init__(
        self,
        teacher: Denoiser | str,
        network: Network | None,
        kernel: Kernel | None,
        parameterization: Parameterization | None,
        sampler: Sampler,
        **training: Any,
    ) -> None:
        source = Source(teacher, "teacher")
        super().__init__(taken_over(source, self, network, kernel, parameterization), sampler, **training)
        self.learn_from(source, network is None, bool(training.get("compile")))
