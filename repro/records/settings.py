"""Settings as records and configs have them: flat under dotted keys, nested, merged, compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro.records.record import is_record

__all__ = ["as_config", "differences", "flat", "merged", "nested"]


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
    if is_record(record):
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
