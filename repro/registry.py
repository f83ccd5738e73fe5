"""Plug-ins: groups -> names -> classes, imported only when one is built.

Every part of the system that has a name (a kernel, a network, a sampler, ...) is an entry point of the group
``repro.<group>``; the built-in ones stand in this project's own ``pyproject.toml`` and have no privileges.
The name of an entry point is the name of its class, so that it is also the short name in configs; tasks, studies and
formats of checkpoints, which are never built from configs, have lower-case names.

A :class:`Group` says what its classes derive from. A package adds a group of its own by an entry point of
``repro.groups`` that points to one.

Constructor arguments are the configuration: whatever the registry builds remembers them; see :mod:`repro.records`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from repro.errors import Outside, UserError, unknown

__all__ = [
    "GROUPS",
    "Entry",
    "Group",
    "Plugin",
    "arguments_of",
    "build",
    "construct",
    "constructors_of",
    "entries",
    "entry_of",
    "group",
    "group_names",
    "groups_of",
    "load",
    "names",
    "path_of",
    "refresh",
]


@dataclass(frozen=True)
class Group:
    """A kind of part that has names: what its classes derive from, and the law that each of them obeys.

    Args:
        name: Plural, as in the entry-point group ``repro.<name>``.
        base: Import path ``module:Class`` of the base class, where it is defined; empty where anything will do.
        law: Import path ``module:function`` of the law; empty where there is none.
        accepts: Import path of a more general class whose subclasses are taken too, as if they derived from the base.
        kind: What one of them is called; the name without its s by default.

    Example:
        >>> Group("kernels", base="repro.kernels:Kernel").one
        'kernel'
    """

    name: str
    base: str = ""
    law: str = ""
    accepts: str = ""
    kind: str = ""

    @property
    def one(self) -> str:
        """Name of one part of the group, in the singular."""
        return self.kind or self.name.removesuffix("s")

    def holds(self, cls: type) -> bool:
        """Whether a class derives from the base, or from what is taken in its place; imports nothing new for a base."""
        if not self.base or any(path_of(each) == self.base for each in cls.__mro__):
            return True
        if not self.accepts or not issubclass(cls, pkgutil.resolve_name(self.accepts)):
            return False
        pkgutil.resolve_name(self.base).register(cls)
        return True


GROUPS = (
    Group("kernels", "repro.kernels:Kernel", "repro.testing.kernels:check_kernel"),
    Group("networks", "repro.networks.base:Network", "repro.testing.networks:check_network", "torch.nn:Module"),
    Group(
        "parameterizations",
        "repro.parameterizations:Parameterization",
        "repro.testing.parameterizations:check_parameterization",
    ),
    Group("denoisers", "repro.denoisers.base:Denoiser", "repro.testing.denoisers:check_denoiser"),
    Group("samplers", "repro.samplers.base:Sampler", "repro.testing.samplers:check_sampler"),
    Group("times", "repro.times:TimeDistribution", kind="time"),
    Group("modules", "repro.training.base:TrainingModule"),
    Group("models", "repro.models.base:Recorded"),
    Group("tasks", "repro.tasks.base:Task"),
    Group("data", "repro.data.base:ImageData", "repro.testing.data:check_data"),
    Group("descriptors", "repro.descriptors.base:Descriptor", "repro.testing.descriptors:check_descriptor"),
    Group("operators", "repro.inverse.operators.base:Operator", "repro.testing.operators:check_operator"),
    Group("metrics", "torchmetrics.metric:Metric", "repro.testing.metrics:check_pair_metric"),
    Group("checkpoints", "repro.released.base:Format", "repro.testing.formats:check_format", kind="checkpoint format"),
    Group("studies", "repro.studies.base:Study", kind="study"),
    Group("executors", "repro.studies.executors.base:Executor", "repro.testing.executors:check_executor"),
)
"""The groups of this package, in the order in which ``repro plugins`` lists them."""

_ARGUMENTS = "_repro_arguments"


@dataclass(frozen=True)
class Entry:
    """One registered name: what it points to and who registered it, known without importing it."""

    group: str
    name: str
    target: str
    package: str
    version: str


def path_of(cls: type) -> str:
    """Returns the import path of a class, ``module:Class``."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _recorded(cls: type) -> None:
    """Makes the instances of a class remember their constructor arguments (defaults included).

    Only the outermost constructor of an instance records, so a subclass records its own arguments, not its base's.
    """
    init = cls.__dict__.get("__init__")
    if init is None or getattr(init, "_repro_records", False):
        return

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if _ARGUMENTS not in self.__dict__ and type(self).__init__ is wrapped:
            self.__dict__[_ARGUMENTS] = _bound(init, self, *args, **kwargs)
        init(self, *args, **kwargs)

    vars(wrapped)["_repro_records"] = True
    type.__setattr__(cls, "__init__", wrapped)


def _bound(init: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a constructor by name, defaults and open keywords included, without the first, self."""
    signature = inspect.signature(init)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[1:])
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
        elif parameter.kind is parameter.VAR_POSITIONAL and not arguments[parameter.name]:
            del arguments[parameter.name]
    for name in signature.parameters.keys() & getattr(type(args[0]), "later_arguments", ()):
        if arguments[name] == signature.parameters[name].default:
            del arguments[name]
    return arguments


class Plugin:
    """Base of the plug-in classes that have one: their instances remember their constructor arguments.

    Attributes:
        inside: Constructor arguments that reach something outside (a path, a download), each with the value under
            which nothing is reached; a record in somebody else's file is built under these only.
        later_arguments: Arguments that older versions of the class did not have: recorded only where they differ from
            their default, so that records, and the fingerprints made of them, stay what they were.
    """

    inside: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    later_arguments: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _recorded(cls)

    @classmethod
    def inside_only(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments under which a record of somebody else's file is built, so that it reaches nothing.

        By default as :attr:`inside` says.

        Raises:
            Outside: an argument names something outside that the object cannot be without.
        """
        for key, value in cls.inside.items():
            if not isinstance(value, bool) and isinstance(arguments.get(key), str) and arguments[key] != value:
                raise Outside(
                    f"{cls.__name__} names {key} {arguments[key]!r:.200}, outside of the file that it came with; name "
                    "it yourself to have it read"
                )
        return {**arguments, **{key: value for key, value in cls.inside.items() if isinstance(value, bool)}}


def refresh() -> None:
    """Looks at the installed packages anew, for a process in which one has been installed since it began."""
    for cached in (_groups, _scan, _targets):
        cached.cache_clear()


@functools.cache
def _groups() -> dict[str, Group | importlib.metadata.EntryPoint]:
    """The groups by name; those of other packages as entry points, which are loaded when one is asked for."""
    groups: dict[str, Group | importlib.metadata.EntryPoint] = {each.name: each for each in GROUPS}
    for point in importlib.metadata.entry_points(group="repro.groups"):
        groups.setdefault(point.name, point)
    return groups


def group_names() -> list[str]:
    """Returns names of the groups, those that other packages add last; imports nothing.

    Example:
        >>> group_names()[:2]
        ['kernels', 'networks']
    """
    return list(_groups())


def group(name: str) -> Group:
    """Returns the group of a name.

    Raises:
        UserError: there is none, or the package that adds it does not say what it is.

    Example:
        >>> group("kernels").base
        'repro.kernels:Kernel'
    """
    _check_group(name)
    known = _groups()[name]
    if isinstance(known, Group):
        return known
    try:
        loaded = known.load()
    except Exception as error:
        raise UserError(f"plug-in group {name!r} cannot be imported from {known.value}: {_reason(error)}") from error
    if not isinstance(loaded, Group) or loaded.name != name:
        raise UserError(f"plug-in group {name!r}: {known.value} is no repro.registry.Group of that name; make it one")
    return loaded


def groups_of(*bases: type) -> list[str]:
    """Returns names of the groups whose base class is among the bases of some classes.

    Example:
        >>> from repro.kernels import Kernel
        >>> groups_of(Kernel)
        ['kernels']
    """
    paths = {path_of(each) for base in bases for each in base.__mro__}
    own = [each.name for each in GROUPS if each.base in paths]
    others = [name for name in group_names() if not isinstance(_groups()[name], Group)]
    return own + [name for name in others if _usable(name) and group(name).base in paths]


def _usable(name: str) -> bool:
    with contextlib.suppress(UserError):
        return bool(group(name).base)
    return False


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def _check_group(name: str) -> None:
    if name not in _groups():
        raise unknown("plug-in group", name, group_names())


@functools.cache
def _scan(group: str) -> dict[str, list[tuple[Entry, importlib.metadata.EntryPoint]]]:
    by_name: dict[str, dict[tuple[str, str], tuple[Entry, importlib.metadata.EntryPoint]]] = defaultdict(dict)
    for point in importlib.metadata.entry_points(group=f"repro.{group}"):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        entry = Entry(group, point.name, point.value, package, version)
        by_name[point.name][(package, point.value)] = (entry, point)
    return {name: list(points.values()) for name, points in sorted(by_name.items())}


def entries(group: str) -> list[Entry]:
    """Returns every registered entry of a group, by name; a name that two packages claim appears once for each."""
    _check_group(group)
    return [entry for points in _scan(group).values() for entry, _ in points]


def names(group: str) -> list[str]:
    """Returns the registered names of a group, sorted.

    Example:
        >>> "VP" in names("kernels")
        True
    """
    _check_group(group)
    return list(_scan(group))


def load(group: str, name: str) -> Any:
    """Imports the class that is registered under a name.

    Raises:
        UserError: unknown name, a name that two packages claim, a plug-in that cannot be imported, one of another base
            class than its group's, or one that leaves a method out.

    Example:
        >>> load("kernels", "VP").__name__
        'VP'
    """
    _check_group(group)
    kind = _kind(group)
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
        raise UserError(
            f"{kind} {name!r} of package {entry.package} cannot be imported from {entry.target}: {_reason(error)}"
        ) from error
    if inspect.isclass(cls):
        _check_class(entry, cls)
    return cls


def _kind(name: str) -> str:
    known = _groups()[name]
    return known.one if isinstance(known, Group) else Group(name).one


def _check_class(entry: Entry, cls: type) -> None:
    """Raises UserError unless a class derives from its group's base and defines what that leaves open."""
    kind, of = group(entry.group), f"{_kind(entry.group)} {entry.name!r} of package {entry.package}"
    base = kind.base.replace(":", ".")
    if not kind.holds(cls):
        also = f", or from {kind.accepts.replace(':', '.')}" if kind.accepts else ""
        raise UserError(f"{of}: {entry.target} must derive from {base}{also}; it derives from {_bases(cls)}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"{of}: {entry.target} must define {', '.join(missing)}, which {base} leaves open")


def _bases(cls: type) -> str:
    return ", ".join(f"{base.__module__}.{base.__qualname__}".removeprefix("builtins.") for base in cls.__bases__)


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
    return construct(cls, **arguments)


def construct(cls: type, /, **arguments: Any) -> Any:
    """Builds a class and lets the object remember its arguments, whether or not the class does that by itself.

    Example:
        >>> from torch import nn
        >>> construct(nn.ReLU)
        ReLU()
    """
    built = cls(**arguments)
    if inspect.isclass(cls) and hasattr(built, "__dict__"):
        built.__dict__.setdefault(_ARGUMENTS, _bound(cls.__init__, built, **arguments))
    return built


def _legal_arguments(cls: type) -> list[str] | None:
    """Names of the constructor's arguments, those that it passes on to its bases included; None when it takes any."""
    signatures = [inspect.signature(init).parameters.values() for init in constructors_of(cls)]
    if any(each.kind is each.VAR_KEYWORD for each in signatures[-1]):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return list(dict.fromkeys(each.name for every in signatures for each in list(every)[1:] if each.kind in kinds))


def constructors_of(cls: type) -> Iterator[Any]:
    """The constructors that take an object's arguments: its class's, and its bases' as far as the rest is passed."""
    for base in inspect.getmro(cls):
        if (init := vars(base).get("__init__")) is not None:
            yield init
            if all(each.kind is not each.VAR_KEYWORD for each in inspect.signature(init).parameters.values()):
                return


def arguments_of(built: Any) -> dict[str, Any] | None:
    """What an object was built with; nothing where its class has no constructor of its own; None when not known."""
    arguments = getattr(built, "__dict__", {}).get(_ARGUMENTS)
    own = _own_classes(type(built))
    if arguments is None and own and not any("__init__" in cls.__dict__ for cls in own):
        return {}
    return arguments


def _own_classes(cls: type) -> list[type]:
    """The classes that an object's class is made of, without those of Python, torch and Lightning."""
    foreign = ("builtins", "abc", "torch", "lightning", "torchmetrics")
    return [each for each in cls.__mro__ if each.__module__.partition(".")[0] not in foreign]


@functools.cache
def _targets() -> dict[str, list[Entry]]:
    """The entries of all groups by the class that they point to."""
    by_target: dict[str, list[Entry]] = defaultdict(list)
    for name in group_names():
        for entry in entries(name):
            by_target[entry.target].append(entry)
    return by_target


def entry_of(cls: type) -> Entry | None:
    """Returns the entry of a class, also where the entry point names a module that only re-exports it."""
    if path_of(cls) in _targets():
        return _targets()[path_of(cls)][0]
    for target, registered in _targets().items():
        if target.partition(":")[2] == cls.__qualname__:
            with contextlib.suppress(Exception):
                if pkgutil.resolve_name(target) is cls:
                    return registered[0]
    return None


_OF_RECORDS = ("differences", "flat", "rebuild", "record_of")


def __getattr__(name: str) -> Any:
    """Names that stood here before :mod:`repro.records`: plug-ins of others import them from here."""
    if name in _OF_RECORDS:
        return getattr(importlib.import_module("repro.records"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
