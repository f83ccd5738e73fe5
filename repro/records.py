"""Records: objects as plain data, ``{"group", "name", "args"}``, and back.

Constructor arguments are the configuration: :func:`record_of` turns what an object was built with into plain JSON data
and :func:`rebuild` builds the same object again. Checkpoints, manifests and ``run.json`` hold such records. A run's
``config.yaml`` is written as ``{class_path, init_args}``; both forms are read.

A record may come from anybody. It is built only where a group or a base class is asked for, after its form and the
types of its arguments have been checked; below ``Any``, ``dict`` and open keyword arguments it stays data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro import registry
from repro.errors import UserError, unknown
from repro.hints import UNKNOWN, classes_in, fits, hints_of, required_of

__all__ = [
    "as_config",
    "complete_record",
    "differences",
    "flat",
    "is_record",
    "merged",
    "nested",
    "rebuild",
    "record_of",
]

_FORM = {"group", "name", "args"}
_FORMER = {"modules": "models"}  # what draws without having been trained here was a training module once


def is_record(value: Any) -> bool:
    """Says whether a value has the form of a record.

    Example:
        >>> is_record({"group": "kernels", "name": "VP", "args": {}})
        True
    """
    return isinstance(value, Mapping) and value.keys() == _FORM


def record_of(built: Any) -> dict[str, Any]:
    """Describes an object as the plain record from which :func:`rebuild` makes the same one.

    Raises:
        UserError: the object's class is not registered, or an argument is neither plain data nor a plug-in.

    Example:
        >>> record_of(registry.build("kernels", "Flow"))
        {'group': 'kernels', 'name': 'Flow', 'args': {'t_min': 0.001}}
    """
    cls = type(built)
    entry, arguments = registry.entry_of(cls), registry.arguments_of(built)
    if entry is None:
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__} cannot be recorded: register it as an entry point of one of "
            f"{', '.join('repro.' + name for name in registry.group_names())}"
        )
    if arguments is None:
        raise UserError(
            f"{entry.name} cannot be recorded: it was built by itself; build it by its name, repro.build"
            f"({entry.group!r}, {entry.name!r}, ...), or derive it from repro.registry.Plugin"
        )
    return {
        "group": entry.group,
        "name": entry.name,
        "args": {key: _plain(value, f"{cls.__name__}({key}=...)") for key, value in arguments.items()},
    }


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)  # of a class of its own too
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if hasattr(value, "__fspath__"):
        return str(value)
    if registry.arguments_of(value) is not None:
        return record_of(value)
    raise UserError(f"{where} is a {type(value).__name__}: only plain data and plug-ins can be recorded")


def rebuild(record: Any, *groups: str, reach: bool = True) -> Any:
    """Builds the object that a record describes; plain data comes back as it is.

    Args:
        record: The record.
        groups: The groups that are legal here; any by default.
        reach: False for a record that came with somebody else's file: nothing is built that reads, fetches or makes
            something outside of it, as each class says in ``inside_only``.

    Raises:
        UserError: a record of another form, of another group than is asked for, with an argument of the wrong type,
            or of something outside where ``reach`` is False; or whatever the class finds wrong.

    Example:
        >>> rebuild({"group": "kernels", "name": "VP", "args": {"rate_max": 10.0}}).rate_max
        10.0
    """
    if not is_record(record):
        return record
    group, name, init = record["group"], record["name"], record["args"]
    if not (isinstance(group, str) and isinstance(name, str) and isinstance(init, dict)):
        raise UserError(f"a record is {str(record)!r:.80}; it has a group, a name and a mapping of arguments")
    group = _group_now(group, name)
    if groups and group not in groups:
        raise UserError(f"record of {name} is one of {group}; here it must be one of {' or '.join(groups)}")
    cls = registry.load(group, name)
    hints = hints_of(cls)
    for missing in set(required_of(cls)) - init.keys():
        raise UserError(f"record of {name} has no {missing}, without which it cannot be built")
    if not reach and issubclass(cls, registry.Plugin):
        init = cls.inside_only(init)
    arguments = {key: _argument(value, hints.get(key, Any), f"{name}.{key}", reach) for key, value in init.items()}
    try:
        return registry.build(group, name, **arguments)
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"record of {name} cannot be built: {type(error).__name__}: {error}") from error


def _group_now(group: str, name: str) -> str:
    """The group of a name, also in a record of before it moved to another one."""
    now = _FORMER.get(group, group)
    return now if name not in registry.names(group) and name in registry.names(now) else group


def _argument(value: Any, hint: Any, where: str, reach: bool) -> Any:
    """An argument with the records in it built where the hint asks for objects."""
    declared = classes_in(hint)
    if is_record(value):
        if not declared and hint is not UNKNOWN:
            return value
        _check_class(value, declared, where)
        return rebuild(value, reach=reach)
    if isinstance(value, list) and (declared or hint is UNKNOWN):
        return [_argument(item, hint, f"{where}[{index}]", reach) for index, item in enumerate(value)]
    if not fits(value, hint):
        raise UserError(f"{where} is {value!r:.60}; it must be {_described(hint)}")
    return value


def _check_class(record: Mapping[str, Any], declared: tuple[type, ...], where: str) -> None:
    """Raises UserError unless the class that a record names is one of those declared."""
    group, name = record["group"], record["name"]
    if not isinstance(group, str) or group not in registry.group_names():
        raise unknown(f"plug-in group of {where}", str(group), registry.group_names())
    group, legal = _group_now(group, str(name)), registry.groups_of(*declared)
    if declared and group not in legal and not issubclass(registry.load(group, str(name)), declared):
        needed = " or ".join(each.__name__ for each in declared)
        raise UserError(f"{where} is {name!r}, one of {group}; it must be a {needed}")


def _described(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)).replace("typing.", "") if not hasattr(hint, "__args__") else str(hint)


def complete_record(built: Any, **arguments: Any) -> None:
    """Records the values that an object took for constructor arguments that were left out (None).

    So its record names everything that it needs, and :func:`rebuild` need not find it out again. Arguments that its
    constructor does not have are left out.
    """
    recorded = registry.arguments_of(built) or {}
    recorded |= {name: value for name, value in arguments.items() if name in recorded}


def as_config(record: Any) -> Any:
    """Turns a plain record into the form of a config, ``{class_path, init_args}``; other plain data stay as they are.

    Example:
        >>> as_config({"group": "kernels", "name": "VP", "args": {"rate_max": 10.0}})
        {'class_path': 'VP', 'init_args': {'rate_max': 10.0}}
    """
    if isinstance(record, list):
        return [as_config(item) for item in record]
    if not isinstance(record, Mapping):
        return record
    if record.keys() == _FORM:
        return {"class_path": record["name"], "init_args": as_config(record["args"])}
    return {key: as_config(value) for key, value in record.items()}


def flat(settings: Any, key: str) -> dict[str, Any]:
    """Flattens settings to dotted keys; of a record or a ``{class_path, init_args}`` the name comes first.

    Example:
        >>> flat({"class_path": "MLP", "init_args": {"width": 64}}, "network")
        {'network': 'MLP', 'network.width': 64}
    """
    if not isinstance(settings, Mapping):
        return {key: settings}
    named: dict[str, Any] = {}
    for name, arguments in (("class_path", "init_args"), ("name", "args")):
        if name in settings and set(settings) <= {name, arguments, "group"}:
            named, inner = {key: settings[name]}, settings.get(arguments) or {}
            settings = inner if isinstance(inner, Mapping) else {arguments: inner}
    for name, value in settings.items():
        named |= flat(value, f"{key}.{name}")
    return named


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Nests settings that are given by dotted keys as a config has them; a class comes before its arguments.

    Example:
        >>> nested({"data": "HeldOut", "data.of": "Digits", "model.lr": 0.1, "seeds": "0-9"})
        {'data': {'class_path': 'HeldOut', 'init_args': {'of': 'Digits'}}, 'model': {'lr': 0.1}, 'seeds': '0-9'}
    """
    result: dict[str, Any] = {}
    for top in dict.fromkeys(key.partition(".")[0] for key in options):
        below = nested({key.partition(".")[2]: value for key, value in options.items() if key.startswith(f"{top}.")})
        if top not in options:
            result[top] = below
        else:
            result[top] = {"class_path": options[top], "init_args": below} if below else options[top]
    return result


def merged(below: Any, above: Any) -> Any:
    """Merges settings over others: mappings key by key, everything else as a whole.

    Example:
        >>> merged({"data": {"class_path": "Digits", "init_args": {"subset": 3}}}, {"data": {"subset": 4}})
        {'data': {'class_path': 'Digits', 'init_args': {'subset': 4}}}
    """
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    if "class_path" in below and not above.keys() & {"class_path", "init_args"}:
        above = {"init_args": above}
    return {**below, **{key: merged(below[key], value) if key in below else value for key, value in above.items()}}


def differences(there: Any, here: Any, key: str) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which settings differ: key -> (there, here); under another class only the class is named."""
    old, new = flat(there, key), flat(here, key)
    changed = {name: (old.get(name), new.get(name)) for name in [*old, *new] if old.get(name) != new.get(name)}
    return {name: pair for name, pair in changed.items() if not any(name.startswith(f"{other}.") for other in changed)}
