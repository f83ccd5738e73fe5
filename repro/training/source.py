"""A denoiser that training begins with, a teacher or a start: where it comes from, and what is taken over from it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch

from repro import records, registry
from repro.checkpoints.loading import load_model
from repro.data.base import ImageData
from repro.data.trust import remember_model
from repro.denoisers import Denoiser, NetworkDenoiser, UnderKernel
from repro.errors import Outside, UserError, nearest
from repro.kernels import Kernel
from repro.models.base import fingerprint_of
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.samplers.base import Sampler
from repro.times import TimeDistribution

__all__ = ["Source", "Unasked", "check_data", "sizes", "taken_over"]


class Unasked(str):
    """The path of a model that somebody else's record names: it stays in the record, and is not read."""


class _Loaded(NamedTuple):
    denoiser: Denoiser
    sampler: Sampler | None = None
    times: TimeDistribution | None = None


class Source:
    """A denoiser that is learnt from: an object, or that of a checkpoint, read when it is first needed.

    It is no module, so its weights are not among those of the model that learns: not in its checkpoints, averages or
    parameters.

    Args:
        origin: A denoiser; or the path of a checkpoint, a run's folder, or whatever else ``repro.load`` reads, whose
            averaged weights answer.
        role: What it is to the model that learns, and the name of that model's argument: ``teacher`` or ``start``.
    """

    def __init__(self, origin: Denoiser | str, role: str) -> None:
        self.origin, self.role = origin, role

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser, in evaluation mode and without gradients.

        Raises:
            UserError: no such file, or one that does not hold a denoiser.
        """
        return self._loaded.denoiser

    @property
    def sampler(self) -> Sampler | None:
        """How the model in the file draws; None for an object."""
        return self._loaded.sampler

    @property
    def times(self) -> TimeDistribution | None:
        """At which times the model in the file was trained; None where nobody knows."""
        return self._loaded.times

    @cached_property
    def _loaded(self) -> _Loaded:
        if not isinstance(self.origin, str):
            return _Loaded(self.origin.eval().requires_grad_(False))
        role = self.role
        if isinstance(self.origin, Unasked):
            raise Outside(
                f"the {role} {self.origin} is outside of the file that names it, and not read unasked; if you trust "
                "that file, name the config of its run: --config FILE"
            )
        try:
            model = load_model(self.origin)
        except UserError as error:
            near = nearest(self.origin, registry.names("denoisers")) if role == "teacher" else None
            guess = f"; did you mean the denoiser {near}?" if near else ""
            raise UserError(f"{role}: {error}{guess}") from error
        remember_model(self.origin)  # the user named it: checkpoints of this training may name it too
        denoiser, sampler = getattr(model, "denoiser", None), getattr(model, "sampler", None)
        if sampler is not None and sampler.consistency:
            raise UserError(
                f"{role} {self.origin} is a consistency model, whose answers are no means; name its teacher"
            )
        if not isinstance(denoiser, Denoiser):
            raise UserError(
                f"{role} {self.origin} holds a {type(model).__name__}, which does not denoise; name a diffusion model"
            )
        return _Loaded(denoiser, sampler, getattr(model, "times", None))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's settings and weights, 64 hexadecimal digits."""
        return fingerprint_of(self.denoiser)

    def under(self, kernel: Kernel) -> Denoiser:
        """Sees the denoiser through another kernel; the same object under its own.

        Raises:
            UserError: the kernel has noise levels that it does not know.
        """
        own = self.denoiser.kernel
        if records.record_of(own) == records.record_of(kernel):
            return self.denoiser
        (known_low, known_high), (low, high) = _ratios(own), _ratios(kernel)
        if low < known_low * (1 - 1e-6) or high > known_high * (1 + 1e-6):
            raise UserError(
                f"kernel {type(kernel).__name__} has noise levels from {low:.3g} to {high:.3g}, the {self.role}'s "
                f"{type(own).__name__} from {known_low:.3g} to {known_high:.3g}; leave the kernel out to take the "
                f"{self.role}'s"
            )
        return UnderKernel(self.denoiser, kernel)

    @property
    def parameterization(self) -> Parameterization:
        """Parameterisation of the source: what its network's output means.

        Raises:
            UserError: it is a formula.
        """
        return self.with_network("parameterization").parameterization

    def copied_network(self) -> Network:
        """Returns a new, trainable network of its settings that starts at its weights.

        Raises:
            UserError: it is a formula.
        """
        source = self.with_network("network").network
        network = records.rebuild(records.record_of(source))
        network.load_state_dict(source.state_dict())
        return network

    def with_network(self, part: str) -> NetworkDenoiser:
        """Returns the denoiser if it has a network, of which ``network`` or ``parameterization`` is taken over.

        Raises:
            UserError: it is a formula.
        """
        if not isinstance(self.denoiser, NetworkDenoiser):
            raise UserError(
                f"the {self.role} is a {type(self.denoiser).__name__}, which has no {part} to take over; "
                f"name the student's: --model.{part} NAME"
            )
        return self.denoiser


def _ratios(kernel: Kernel) -> tuple[float, float]:
    """Smallest and largest ratio of a kernel."""
    low, high = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64)).tolist()
    return low, high


def taken_over(
    source: Source,
    module: Any,
    network: Network | None,
    kernel: Kernel | None,
    parameterization: Parameterization | None,
) -> NetworkDenoiser:
    """Builds the denoiser that a module trains; what is left out (None) is taken over from the source.

    Args:
        source: A teacher or a start.
        module: Whose constructor had these arguments.
        network: Its network, or None to begin with the source's.
        kernel: Its kernel, or None.
        parameterization: What its network's output means, or None.

    Raises:
        UserError: the source cannot be read, or is a formula where its network or parameterisation is wanted.
    """
    network = source.copied_network() if network is None else network
    kernel, parameterization = kernel or source.denoiser.kernel, parameterization or source.parameterization
    records.complete_record(module, network=network, kernel=kernel, parameterization=parameterization)
    return NetworkDenoiser(network, kernel, parameterization)


def check_data(role: str, module: Any, data: ImageData | None) -> None:
    """Raises UserError when a model has other images or classes than the data, as its teacher or start has too."""
    if data is None:
        return
    name = type(data).__name__
    remedy = f"name other --data, or another {role}: --model.{role} PATH"
    if tuple(data.image_shape) != tuple(module.image_shape):
        there, here = sizes(module.image_shape), sizes(data.image_shape)
        raise UserError(f"the {role} is for images {there}, {name} has {here}; {remedy}")
    if module.num_classes not in (0, data.num_classes):
        raise UserError(f"the {role} has {module.num_classes} classes, {name} has {data.num_classes}; {remedy}")


def sizes(shape: tuple[int, ...]) -> str:
    """Writes a shape as text, such as ``3x32x32``.

    Example:
        >>> sizes((3, 32, 32))
        '3x32x32'
    """
    return "x".join(map(str, shape))
