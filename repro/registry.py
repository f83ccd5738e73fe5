"""Plug-ins: entry-point groups -> names -> classes, imported only when one is built.

Every part of the system that has a name (a kernel, a network, a sampler, ...) is an entry point of the group
``repro.<group>``; the built-in ones stand in this project's own ``pyproject.toml`` and have no privileges.
The name of an entry point is the name of its class, so that it is also the short name in configs; tasks, studies and
formats of checkpoints, which are never built from configs, have lower-case names.

Constructor arguments are the configuration: whatever the registry builds remembers them, :func:`record_of` turns
them into plain JSON data and :func:`rebuild` builds the same object again. Checkpoints and banks hold such records.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.errors import UserError, unknown

__all__ = [
    "GROUPS",
    "Entry",
    "Plugin",
    "build",
    "differences",
    "entries",
    "flat",
    "load",
    "names",
    "rebuild",
    "record_arguments",
    "record_of",
    "settle",
]

GROUPS = (
    "kernels",
    "networks",
    "parameterizations",
    "denoisers",
    "samplers",
    "times",
    "modules",
    "tasks",
    "data",
    "descriptors",
    "operators",
    "metrics",
    "checkpoints",
    "studies",
)

_ARGUMENTS = "_repro_arguments"


@dataclass(frozen=True)
class Entry:
    """One registered name: what it points to and who registered it, known without importing it."""

    group: str
    name: str
    target: str
    package: str
    version: str


def record_arguments(cls: type) -> type:
    """Makes the instances of a class remember their constructor arguments (defaults included).

    Only the outermost constructor of an instance records, so a subclass records its own arguments, not its base's.
    Wrapping a class twice does nothing.
    """
    init = cls.__dict__.get("__init__")
    if init is None or getattr(init, "_repro_records", False):
        return cls
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if _ARGUMENTS not in self.__dict__ and type(self).__init__ is wrapped:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    arguments |= arguments.pop(parameter.name)
            self.__dict__[_ARGUMENTS] = arguments
        init(self, *args, **kwargs)

    wrapped._repro_records = True
    cls.__init__ = wrapped
    return cls


def settle(built: Any, **arguments: Any) -> None:
    """Records what an object itself put in place of constructor arguments that were left open (None).

    So its record names everything that it needs, and :func:`rebuild` need not find it out again. Arguments that its
    constructor does not have are left out.
    """
    recorded = built.__dict__.get(_ARGUMENTS, {})
    recorded |= {name: value for name, value in arguments.items() if name in recorded}


class Plugin:
    """Base of the plug-in classes that have one: their instances remember their constructor arguments."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        record_arguments(cls)


def _check_group(group: str) -> None:
    if group not in GROUPS:
        raise unknown("plug-in group", group, GROUPS)


@functools.cache
def _scan(group: str) -> dict[str, list[tuple[Entry, importlib.metadata.EntryPoint]]]:
    found: dict[str, dict[tuple[str, str], tuple[Entry, importlib.metadata.EntryPoint]]] = defaultdict(dict)
    for point in importlib.metadata.entry_points(group=f"repro.{group}"):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        entry = Entry(group, point.name, point.value, package, version)
        found[point.name][(package, point.value)] = (entry, point)
    return {name: list(points.values()) for name, points in sorted(found.items())}


def entries(group: str) -> list[Entry]:
    """Every registered entry of a group, by name; a name that two packages claim appears once for each."""
    _check_group(group)
    return [entry for points in _scan(group).values() for entry, _ in points]


def names(group: str) -> list[str]:
    """The registered names of a group, sorted.

    Example:
        >>> "VP" in names("kernels")
        True
    """
    _check_group(group)
    return list(_scan(group))


def load(group: str, name: str) -> type:
    """The class registered under a name; imports it.

    Raises:
        UserError: unknown name, a name that two packages claim, or a plug-in that cannot be imported.

    Example:
        >>> load("kernels", "VP").__name__
        'VP'
    """
    _check_group(group)
    kind = group.removesuffix("s")
    if name not in _scan(group):
        raise unknown(kind, name, names(group), f"list them: repro plugins {group}")
    claims = _scan(group)[name]
    if len(claims) > 1:
        owners = " and ".join(f"{entry.package} ({entry.target})" for entry, _ in claims)
        raise UserError(f"{kind} {name!r} is claimed by {owners}; uninstall one of them or rename its entry point")
    entry, point = claims[0]
    try:
        cls = point.load()
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        raise UserError(
            f"{kind} {name!r} of package {entry.package} cannot be imported from {entry.target}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    return record_arguments(cls) if inspect.isclass(cls) else cls


def build(group: str, name: str, /, **arguments: Any) -> Any:
    """Builds the class registered under a name.

    Raises:
        UserError: as :func:`load`, or an argument that the class does not take.

    Example:
        >>> build("kernels", "VP", rate_max=10.0).rate_max
        10.0
    """
    cls = load(group, name)
    legal = _legal_arguments(cls)
    for argument in arguments:
        if legal is not None and argument not in legal:
            raise unknown(f"argument of {name}", argument, legal)
    return cls(**arguments)


def _legal_arguments(cls: type) -> list[str] | None:
    """Names of the constructor's arguments, those that it passes on to its bases included; None when it takes any."""
    found: dict[str, None] = {}
    for base in inspect.getmro(cls):
        if "__init__" not in base.__dict__:
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        found |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return list(found)
    return None


def record_of(built: Any) -> dict[str, Any]:
    """The plain record ``{"group", "name", "args"}`` from which :func:`rebuild` makes the same object.

    Raises:
        UserError: the object's class is not registered, or an argument is neither plain data nor a plug-in.

    Example:
        >>> record_of(build("kernels", "Flow"))
        {'group': 'kernels', 'name': 'Flow', 'args': {'t_min': 0.001}}
    """
    cls = type(built)
    entry = _entry_of(cls)
    arguments = built.__dict__.get(_ARGUMENTS)
    if entry is None or arguments is None:
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__} cannot be recorded: register it as an entry point of one of "
            f"{', '.join('repro.' + g for g in GROUPS)} and build it by its name"
        )
    return {
        "group": entry.group,
        "name": entry.name,
        "args": {key: _plain(value, f"{cls.__name__}({key}=...)") for key, value in arguments.items()},
    }


def _entry_of(cls: type) -> Entry | None:
    """The entry of a class, also where the entry point names a module that only re-exports it."""
    claims = [claim for group in GROUPS for found in _scan(group).values() for claim in found]
    alike = [(entry, point) for entry, point in claims if entry.target.partition(":")[2] == cls.__qualname__]
    for entry, _ in alike:
        if entry.target == f"{cls.__module__}:{cls.__qualname__}":
            return entry
    for entry, point in alike:
        with contextlib.suppress(Exception):
            if point.load() is cls:
                return entry
    return None


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if hasattr(value, "__dict__") and _ARGUMENTS in value.__dict__:
        return record_of(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise UserError(f"{where} is a {type(value).__name__}: only plain data and plug-ins can be recorded")


def rebuild(record: Any) -> Any:
    """Builds the object that a record describes; plain data comes back as it is.

    Example:
        >>> rebuild({"group": "kernels", "name": "VP", "args": {"rate_max": 10.0}}).rate_max
        10.0
    """
    if isinstance(record, list):
        return [rebuild(item) for item in record]
    if isinstance(record, dict):
        if record.keys() == {"group", "name", "args"}:
            return build(record["group"], record["name"], **rebuild(record["args"]))
        return {key: rebuild(value) for key, value in record.items()}
    return record


def flat(settings: Any, key: str) -> dict[str, Any]:
    """Settings as dotted keys: of a record ``{group, name, args}`` or a ``{class_path, init_args}``, its name first.

    Example:
        >>> flat({"class_path": "MLP", "init_args": {"width": 64}}, "network")
        {'network': 'MLP', 'network.width': 64}
    """
    if not isinstance(settings, Mapping):
        return {key: settings}
    named: dict[str, Any] = {}
    for name, arguments in (("class_path", "init_args"), ("name", "args")):
        if name in settings and set(settings) <= {name, arguments, "group"}:
            named, settings = {key: settings[name]}, settings.get(arguments) or {}
    for name, value in settings.items():
        named |= flat(value, f"{key}.{name}")
    return named


def differences(there: Any, here: Any, key: str) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which settings differ: key -> (there, here); under another class only the class is named."""
    old, new = flat(there, key), flat(here, key)
    found = {name: (old.get(name), new.get(name)) for name in [*old, *new] if old.get(name) != new.get(name)}
    return {name: pair for name, pair in found.items() if not any(name.startswith(f"{other}.") for other in found)}
