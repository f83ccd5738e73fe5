"""Learning from a teacher: where it comes from, and a student that starts as its copy and stands without it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from repro import registry
from repro.checkpoints.native import load_module
from repro.denoisers import Denoiser, NetworkDenoiser, UnderKernel
from repro.errors import UserError, nearest
from repro.kernels import Kernel
from repro.modules.base import fingerprint_of
from repro.modules.diffusion import DenoiserModule
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler

__all__ = ["DistillationModule", "Taught", "Teacher", "student_of"]


class Teacher:
    """A denoiser that is learnt from: an object, or that of a checkpoint, read when it is first needed.

    It is no module, so its weights are not among the student's: not in its checkpoints, averages or parameters.

    Args:
        given: A denoiser; or the path of a checkpoint, a run's folder, or whatever else ``repro.load`` reads, whose
            averaged weights answer.
    """

    def __init__(self, given: Denoiser | str) -> None:
        self.given = given

    @cached_property
    def denoiser(self) -> Denoiser:
        """The teacher, in evaluation mode and without gradients.

        Raises:
            UserError: no such file, or one that does not hold a denoiser.
        """
        if not isinstance(self.given, str):
            return self.given.eval().requires_grad_(False)
        try:
            module = load_module(self.given)
        except UserError as error:
            near = nearest(self.given, registry.names("denoisers"))
            guess = f"; did you mean the denoiser {near}?" if near else ""
            raise UserError(f"teacher: {error}{guess}") from error
        found = getattr(module, "average", getattr(module, "denoiser", None))
        if module.sampler is not None and module.sampler.consistency:
            raise UserError(
                f"teacher {self.given} is a consistency model, whose answers are no means; name its teacher"
            )
        if not isinstance(found, Denoiser):
            raise UserError(
                f"teacher {self.given} holds a {type(module).__name__}, which does not denoise; name a diffusion model"
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over its settings and weights."""
        return fingerprint_of(self.denoiser)

    def under(self, kernel: Kernel) -> Denoiser:
        """The teacher seen through a kernel.

        Raises:
            UserError: the kernel has noise levels that the teacher does not know.
        """
        own = self.denoiser.kernel
        if registry.record_of(own) == registry.record_of(kernel):
            return self.denoiser
        (known_low, known_high), (low, high) = _ratios(own), _ratios(kernel)
        if low < known_low * (1 - 1e-6) or high > known_high * (1 + 1e-6):
            raise UserError(
                f"kernel {type(kernel).__name__} has noise levels from {low:.3g} to {high:.3g}, the teacher's "
                f"{type(own).__name__} from {known_low:.3g} to {known_high:.3g}; leave the kernel out to take the "
                "teacher's"
            )
        return UnderKernel(self.denoiser, kernel)

    @property
    def parameterization(self) -> Parameterization:
        """What its network's output means.

        Raises:
            UserError: the teacher is a formula.
        """
        return self.with_network("parameterization").parameterization

    def copied_network(self) -> Network:
        """A new, trainable network of the teacher's settings that starts at its weights.

        Raises:
            UserError: the teacher is a formula.
        """
        source = self.with_network("network").network
        network = registry.rebuild(registry.record_of(source))
        network.load_state_dict(source.state_dict())
        return network

    def with_network(self, part: str) -> NetworkDenoiser:
        """The teacher, of which the student takes a part over: ``network`` or ``parameterization``.

        Raises:
            UserError: the teacher is a formula.
        """
        if not isinstance(self.denoiser, NetworkDenoiser):
            raise UserError(
                f"the teacher is a {type(self.denoiser).__name__}, which has no {part} to take over; "
                f"name the student's: --model.{part} NAME"
            )
        return self.denoiser


def _ratios(kernel: Kernel) -> tuple[float, float]:
    """Smallest and largest ratio of a kernel."""
    low, high = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64)).tolist()
    return low, high


def student_of(
    source: Teacher,
    module: DenoiserModule,
    network: Network | None,
    kernel: Kernel | None,
    parameterization: Parameterization | None,
) -> NetworkDenoiser:
    """The student of a teacher; what is left out (None) is the teacher's, and stands in the module's record.

    Args:
        source: The teacher.
        module: Whose constructor had these arguments.
        network: The student's network, or None to start from the teacher's.
        kernel: The student's kernel, or None.
        parameterization: What its output means, or None.

    Raises:
        UserError: the teacher cannot be read, or is a formula where its network or parameterisation is wanted.
    """
    parts = {
        "network": source.copied_network() if network is None else network,
        "kernel": kernel or source.denoiser.kernel,
        "parameterization": parameterization or source.parameterization,
    }
    registry.settle(module, **parts)
    return NetworkDenoiser(**parts)


class Taught:
    """What modules with a teacher share, to be put before a base that is a :class:`DenoiserModule`.

    The teacher is read where it is first needed: by the constructor when the student takes something from it, else as
    training begins.
    """

    def learn_from(self, source: Teacher, copies: bool, compiles: bool) -> None:
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
            ("images", _sizes(teacher.image_shape), _sizes(self.image_shape)),
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
        data = self.trainer.datamodule
        if data is not None and tuple(data.image_shape) != tuple(self.image_shape):
            raise UserError(
                f"the teacher is for images {_sizes(self.image_shape)}, {type(data).__name__} has "
                f"{_sizes(data.image_shape)}; name other --data, or another teacher: --model.teacher PATH"
            )
        if data is not None and self.num_classes not in (0, data.num_classes):
            raise UserError(
                f"the teacher has {self.num_classes} classes, {type(data).__name__} has {data.num_classes}; "
                "name other --data, or another teacher: --model.teacher PATH"
            )
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
        **training: As for :class:`~repro.modules.diffusion.DenoiserModule`.

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
        source = Teacher(teacher)
        super().__init__(student_of(source, self, network, kernel, parameterization), sampler, **training)
        self.learn_from(source, network is None, bool(training.get("compile")))


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
