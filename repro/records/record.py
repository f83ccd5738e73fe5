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
from repro.records.hints import UNKNOWN, classes_in, fits, hints_of, required_of

__all__ = ["complete_record", "is_record", "rebuild", "record_of"]

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
