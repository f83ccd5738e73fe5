"""The contract of formats: which files are theirs, and the model that such a file holds."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from repro import registry
from repro.errors import UserError
from repro.files import sha256_of_file
from repro.kernels import VP, DiscreteVP, Kernel, SubVP
from repro.models.denoising import DenoisingModel
from repro.models.weights import load_weights
from repro.parameterizations import Eps, Parameterization
from repro.registry import Plugin
from repro.released.addresses import local_path
from repro.released.containers import FLAX, kind_of, read_content
from repro.released.flax_weights import flax_state_dicts
from repro.released.folders import title_of, weights_in
from repro.released.state_dicts import AVERAGED, StateDict, Weights, choose, shadow_in, state_dicts_in
from repro.samplers.base import Sampler
from repro.times import DiscreteTimes, TimeDistribution, UniformTimes

__all__ = [
    "ForeignFile",
    "Format",
    "Parts",
    "fill",
    "named",
    "negating",
    "outline",
    "variance_preserving",
]

Parts = tuple[Kernel, Parameterization, TimeDistribution | None]
_StateDictOf = Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]
_SAME_BYTES, _FIRST_TIME = 2, 1e-5
_SUFFIXES = (".pkl", ".pth", ".pt", ".ckpt", ".safetensors")


class ForeignFile:
    """A file of another project, and what a format found in it.

    Args:
        path: The file, a folder in the layout of diffusers, or an address ``hf://owner/name/file`` of a file that is in
            the cache of ``huggingface_hub``.

    Attributes:
        path: The file; of a folder, the one with the weights of its network.
        title: What it is called: the file's name without its ending, or the folder's.
        found: What it holds, in a few words; filled in by the format that reads it.
        assumed: Options that the file does not settle, with the values that were taken; filled in likewise.
        raw: State dict of our network with the weights of the last step, where the file has them beside averaged ones.
        unread: Names of the pickled classes and functions in it that are left unread, as keys.

    Raises:
        UserError: there is no such file, or it is another folder, or an address that has to be downloaded first.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = local_path(path)
        self.title = title_of(path)
        if path.is_dir() and (weights := weights_in(path)) is not None:
            path = weights
        if path.is_dir():
            inside = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES)
            hint = f", for example {inside[-1]}" if inside else ""
            raise UserError(f"{path} is a folder; name the checkpoint file in it{hint}")
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        self.path, self.found = path, ""
        self.assumed: dict[str, Any] = {}
        self.unread: dict[str, None] = {}
        self.raw: Mapping[str, Tensor] | None = None

    @property
    def content(self) -> Any:
        """Content of the file: plain data, tensors and records; read once, executing nothing of it.

        Raises:
            UserError: as :func:`repro.released.containers.read_content`.
        """
        content, error = self._read
        if error is not None:
            raise error
        return content

    @cached_property
    def _read(self) -> tuple[Any, UserError | None]:
        try:
            return read_content(self.path, self.unread), None
        except UserError as error:
            return None, error

    @cached_property
    def state_dicts(self) -> list[StateDict]:
        """Every mapping from names to tensors in it, see :mod:`repro.released.state_dicts`."""
        if kind_of(self.path) == FLAX:
            return flax_state_dicts(self.content)
        return state_dicts_in(self.content, self.path.name if self.title == self.path.stem else self.title)

    def weights(self, fits: Callable[[Mapping[str, Tensor]], bool]) -> Weights | None:
        """Returns the weights whose names fit, without what stands in front of all of them; None when there are none.

        Args:
            fits: Whether names are those of the wanted network, for example :func:`named`.
        """
        return choose(self.state_dicts, fits)

    def require(self, fits: Callable[[Mapping[str, Tensor]], bool]) -> Weights:
        """Returns the weights whose names fit, as :meth:`weights` finds them.

        Raises:
            UserError: there are none.
        """
        if (weights := self.weights(fits)) is None:
            raise UserError(f"{self.path} holds no weights with the names of this format; leave the format out")
        return weights

    @cached_property
    def shadow(self) -> list[Tensor] | None:
        """Averaged tensors that are kept as a list without names (``ema.shadow_params``); None when there are none.

        Raises:
            UserError: something of that name that is no list of tensors.
        """
        try:
            return shadow_in(self.content)
        except UserError as error:
            raise UserError(f"cannot read {self.path}: {error}") from error

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file's bytes."""
        return sha256_of_file(self.path)


class Format(Plugin, ABC):
    """Base of the formats; one of them defines :meth:`recognises` and :meth:`read`.

    Its name in the group ``repro.checkpoints`` is what ``--format`` takes. Its constructor takes what a file may not
    say; there None stands for "what the file says, or else the released models' value", which :meth:`settle` looks up.

    Args:
        sampler: How images are drawn; by default as the paper draws from models of this format.

    Attributes:
        about: The format in a few words, for the list of ``repro import --help``.
    """

    about: ClassVar[str] = ""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.sampler = sampler

    @abstractmethod
    def recognises(self, file: ForeignFile) -> bool:
        """Says whether a file is of this format, and no other; it looks at names, not at values."""

    @abstractmethod
    def read(self, file: ForeignFile) -> DenoisingModel:
        """Reads the model of a file that was recognised, with its averaged weights; :func:`fill` keeps the raw ones.

        Raises:
            UserError: the file is not as it should be, or leaves something open for which there is no default; then
                the message names the option to type.
        """

    def settle(self, file: ForeignFile, option: str, default: Any, why: str = "") -> Any:
        """Chooses the value of an option: as given, or the default, which is noted as assumed.

        Args:
            file: The file that does not say it.
            option: Name of a constructor's argument.
            default: Its value when it was not given; None when there is none.
            why: What is unusual about the file, for the message when there is none.

        Raises:
            UserError: neither a value nor a default.
        """
        value = getattr(self, option)
        if value is not None:
            return value
        if default is None:
            reason = f" ({why})" if why else ""
            raise UserError(f"{file.path} does not say its {option.replace('_', ' ')}{reason}; type --{option} VALUE")
        file.assumed[option] = default
        return default

    def diffusion(
        self,
        record: Mapping[str, Any],
        kernel: Kernel,
        parameterization: Parameterization,
        sampler: Sampler,
        times: TimeDistribution | None = None,
    ) -> DenoisingModel:
        """Builds a diffusion model, without the file's weights.

        Args:
            record: Name and arguments of the network, from a layout's ``settings``.
            kernel: Its kernel.
            parameterization: What its output means.
            sampler: The sampler, unless another was given.
            times: How its training times were drawn; uniformly by default.
        """
        network = registry.build("networks", record["name"], **record["args"])
        return DenoisingModel(network, kernel, parameterization, self.sampler or sampler, times)

    def assemble(
        self,
        file: ForeignFile,
        weights: Weights,
        record: Mapping[str, Any],
        ours: _StateDictOf,
        parts: Parts,
        sampler: Sampler,
        what: str,
        with_shadow: Callable[[Mapping[str, Tensor], list[Tensor], nn.Module], dict[str, Tensor]] | None = None,
    ) -> DenoisingModel:
        """Builds a diffusion model with the file's averaged weights, and notes what was found; the raw ones are kept.

        Args:
            file: The file.
            weights: Its weights, from :meth:`ForeignFile.require`.
            record: Name and arguments of the network, from a layout's ``settings``.
            ours: State dict of our network from the foreign tensors and its outline, a layout's ``state_dict``.
            parts: Kernel, meaning of the output, and training times (None: uniform).
            sampler: The sampler, unless another was given.
            what: The network in a few words.
            with_shadow: Puts an average that is a list without names in the place of the named tensors.
        """
        shape = outline(file, record, weights.tensors.values())
        tensors, raw, kind = weights.tensors, weights.raw, weights.kind
        if with_shadow is not None and file.shadow is not None:
            tensors, raw, kind = with_shadow(tensors, file.shadow, shape), tensors, AVERAGED
        averaged = ours(tensors, shape)
        model = self.diffusion(record, parts[0], parts[1], sampler, parts[2])
        fill(model, averaged, None if raw is None else ours(raw, shape), file)
        file.found = f"{what}, {kind}"
        return model


def outline(file: ForeignFile, record: Mapping[str, Any], tensors: Collection[Tensor]) -> nn.Module:
    """Builds the network of a record with shapes only, without memory for its weights.

    Args:
        file: The file, for messages.
        record: Name and arguments of the network, from a layout's ``settings``.
        tensors: The tensors of one network of the file.

    Raises:
        UserError: the tensors use the file's bytes more than once, or the network is larger than they are: the
            settings in the file are not those of its weights.
    """
    shapes = [tensor.shape for tensor in tensors]
    bytes_used = sum(tensor.nbytes for tensor in tensors)
    if bytes_used > _SAME_BYTES * file.path.stat().st_size:
        raise UserError(f"cannot read {file.path}: its tensors claim {bytes_used:,} bytes, more than it has")
    left, elements = len(shapes), sum(shape.numel() for shape in shapes)

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left, elements
        if parameter is not None:
            left, elements = left - 1, elements - parameter.numel()
        if min(left, elements) < 0:
            raise UserError(f"cannot read {file.path}: its weights are fewer than those of the network it describes")

    watch = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return registry.build("networks", record["name"], **record["args"])
    finally:
        watch.remove()


def variance_preserving(name: str) -> tuple[Kernel, Parameterization, TimeDistribution]:
    """Returns the kernel, meaning of the output (the noise) and training times of a model by the kernel's name.

    Args:
        name: ``VP`` or ``SubVP``, where the network is shown 999 t, or ``DiscreteVP``, where it is shown DDPM's step.
    """
    if name == "DiscreteVP":
        kernel = DiscreteVP()
        return kernel, Eps(condition_scale=float(kernel.steps), condition_shift=-1.0), DiscreteTimes()
    return {"VP": VP, "SubVP": SubVP}[name](t_min=_FIRST_TIME), Eps(), UniformTimes()


def fill(
    model: DenoisingModel, averaged: Mapping[str, Tensor], raw: Mapping[str, Tensor] | None, file: ForeignFile
) -> None:
    """Loads the file's weights, under our names, into a model, and keeps those of the last step beside it.

    Args:
        model: The model.
        averaged: State dict of its network; it samples with these.
        raw: State dict of the weights of the last step, where the file has them.
        file: The file, which keeps ``raw``.
    """
    load_weights(model.denoiser.network, averaged, str(file.path))
    file.raw = raw


def named(*names: str) -> Callable[[Mapping[str, Tensor]], bool]:
    """Makes the test whether a state dict has all of some names, for :meth:`ForeignFile.weights`."""
    return lambda tensors: all(name in tensors for name in names)


def negating(ours: _StateDictOf) -> _StateDictOf:
    """Changes a layout's ``state_dict`` for one of our U-Nets so that the network's answer has the other sign.

    Variance-exploding networks give the score times the noise level, which is minus the noise.
    """

    def negated(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        ends = (".head.conv.weight", ".head.conv.bias")
        return {name: -each if name.endswith(ends) else each for name, each in ours(foreign, network).items()}

    return negated
