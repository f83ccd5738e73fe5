"""Snapshots of NVlabs/edm: a pickled module in one of four wrappers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from repro.errors import UserError
from repro.kernels import EDM, VP, DiscreteVP, Kernel
from repro.models.denoising import DenoisingModel
from repro.parameterizations import EDMPreconditioning, Eps, Parameterization
from repro.released.base import ForeignFile, Format, negating
from repro.released.edm import layout as edm
from repro.released.pickles import Record
from repro.released.state_dicts import AVERAGED, UNKNOWN, Weights, is_averaged, pickled_modules, state_of
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes, TimeDistribution, UniformTimes

__all__ = ["EDMFormat", "inner_name", "read_wrapper", "wrapper_of"]

_Parts = tuple[Kernel, Parameterization, TimeDistribution]


def _edm_parts(arguments: Mapping[str, Any]) -> _Parts:
    return EDM(), EDMPreconditioning(arguments.get("sigma_data", 0.5)), LogNormalTimes()


def _vp_parts(arguments: Mapping[str, Any]) -> _Parts:
    slope, rate = arguments.get("beta_d", 19.9), arguments.get("beta_min", 0.1)
    kernel = VP(rate, rate + slope, t_min=arguments.get("epsilon_t", 1e-5))
    return kernel, Eps(condition_scale=float(arguments.get("M", 1000) - 1)), UniformTimes()


def _ve_parts(arguments: Mapping[str, Any]) -> _Parts:
    kernel = EDM(arguments.get("sigma_min", 0.02), arguments.get("sigma_max", 100.0))
    return kernel, Eps("log_ratio", condition_scale=1.0, condition_shift=math.log(0.5)), LogNormalTimes()


def _iddpm_parts(arguments: Mapping[str, Any]) -> _Parts:
    if (arguments.get("C_1", 0.001), arguments.get("C_2", 0.008)) != (0.001, 0.008):
        raise UserError("the iDDPM wrapper has C_1 or C_2 other than 0.001 and 0.008, which no kernel here has")
    kernel = DiscreteVP("cosine", arguments.get("M", 1000))
    return kernel, Eps(condition_scale=float(kernel.steps), condition_shift=-1.0), UniformTimes()


_WRAPPERS: dict[str, Callable[[Mapping[str, Any]], _Parts]] = {
    "EDMPrecond": _edm_parts,
    "VPPrecond": _vp_parts,
    "VEPrecond": _ve_parts,
    "iDDPMPrecond": _iddpm_parts,
}


class EDMFormat(Format):
    """EDM (NVlabs/edm): ``edm-*.pkl``, ``network-snapshot-*.pkl``, ``training-state-*.pt``.

    The class in the pickle decides: ``EDMPrecond`` has EDM's kernel, ``VPPrecond`` the VP kernel, ``VEPrecond`` noise
    levels from 0.02 to 100, ``iDDPMPrecond`` DDPM's steps under the cosine schedule, but for the noisiest, interpolated
    where the original rounds to the nearest. Everything else is in the pickle too. Drawn with Heun's method, 18 steps.

    Args:
        sampler: How images are drawn, in place of Heun's method.
    """

    about: ClassVar[str] = "NVlabs/edm, a pickle with the entry 'ema'"

    def recognises(self, file: ForeignFile) -> bool:
        wrapper = wrapper_of(file.content)
        return wrapper is not None and inner_name(wrapper) in ("SongUNet", "DhariwalUNet")

    def read(self, file: ForeignFile) -> DenoisingModel:
        return read_wrapper(self, file, edm)


def wrapper_of(content: Any) -> Record | None:
    """Returns the pickled wrapper in a file, the averaged one where there are several; None when there is none."""
    return next((record for record, _, _ in _wrappers(content)), None)


def _wrappers(content: Any) -> list[tuple[Record, bool, bool]]:
    """Every pickled wrapper, averaged ones first; whether it is averaged, and whether it lies below some key."""
    held = pickled_modules(content, _WRAPPERS)
    described = [(record, any(map(is_averaged, path)), bool(path)) for record, path in held]
    return sorted(described, key=lambda each: not each[1])


def inner_name(wrapper: Record) -> str:
    """Returns the name of the class of the network inside a wrapper, empty when there is none."""
    parts = wrapper.state.get("_modules")
    inner = parts.get("model") if isinstance(parts, dict) else None
    return inner.name if isinstance(inner, Record) else ""


def read_wrapper(chosen: Format, file: ForeignFile, layout: ModuleType) -> DenoisingModel:
    """Returns the model that a wrapper and its network make.

    Args:
        chosen: The format that reads the file.
        file: The file.
        layout: The layout of its network.
    """
    if not (wrappers := _wrappers(file.content)):
        raise UserError(f"{file.path} holds no network of EDM; leave the format out")
    (wrapper, averaged, named), *others = wrappers
    arguments = _constructor_arguments(wrapper) | {"class_name": wrapper.name}
    record = layout.settings(arguments)
    # The code answers without a label whether or not that was trained; only a trained answer is worth drawing.
    record["args"]["null_class"] = arguments.get("label_dropout", 0) > 0
    parts, what = _WRAPPERS[wrapper.name](arguments), f"{wrapper.name} of {inner_name(wrapper)}"
    kind = AVERAGED if averaged else "weights of the last step" if named else UNKNOWN
    raw = next((state_of(other) for other, is_average, _ in others if averaged and not is_average), None)
    weights = Weights(state_of(wrapper), raw, kind)
    ours = negating(layout.state_dict) if wrapper.name == "VEPrecond" else layout.state_dict
    return chosen.assemble(file, weights, record, ours, parts, Heun(), what)


def _constructor_arguments(wrapper: Record) -> dict[str, Any]:
    arguments = wrapper.state.get("_init_kwargs")
    arguments = arguments.items if isinstance(arguments, Record) else arguments
    if wrapper.state.get("_init_args") or not isinstance(arguments, dict):
        raise UserError(f"the {wrapper.name} in this pickle does not tell its arguments by their names")
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any, depth: int = 4) -> Any:
    if isinstance(value, list | tuple) and depth:
        return [_plain(item, depth - 1) for item in value]
    if not isinstance(value, int | float | str | None):
        raise UserError(f"a setting in this pickle is a {type(value).__name__}; it should be plain data")
    return value
