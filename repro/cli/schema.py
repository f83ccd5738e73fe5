"""What may stand where: the options of a parser and of the classes chosen in it, and the classes legal at each.

A class is built in two kinds of places only: where a registered group is asked for, and where a base class is declared.
Everywhere else, below ``Any``, ``dict`` and open keyword arguments, a mapping is data, whatever its keys are.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import pkgutil
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from repro import registry
from repro.errors import UserError, nearest, unknown
from repro.records import classes_in, parts_of

__all__ = ["Slot", "allow", "class_of", "options_of", "settings_of", "slot_of"]


@dataclasses.dataclass(frozen=True)
class Slot:
    """The classes that may stand for one setting: base classes, their groups, and whether text is legal too.

    Attributes:
        bases: The classes that the type hint declares.
        groups: The groups that one of them is the base of.
        takes_text: Whether plain text is legal there too.
    """

    bases: tuple[type, ...]
    groups: tuple[str, ...]
    takes_text: bool

    def choose(self, name: str, where: str) -> type | None:
        """Finds the class of a registered name, of a name known to the base class, or of an import path.

        Args:
            name: As in a config or on a command line.
            where: Key of the place, for error messages.

        Returns:
            The class; None where the text is no class, but legal as it is.

        Raises:
            UserError: no such class, or one of another base.
        """
        for group in self.groups:
            if name in registry.names(group):
                return _for_key(where, registry.load, group, name)
        if self.takes_text and os.path.exists(name):
            return None
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            return self._imported(name, where)
        known = {} if self.groups else {cls.__name__: cls for base in self.bases for cls in _below(base)}
        if name in known:
            return known[name]
        if self.takes_text:
            return None
        if self.groups:
            raise self._unknown(name, where)
        near = nearest(name, known)
        guess = f"; did you mean {near!r}?" if near else ";"
        raise UserError(f"{where}: no class {name!r}{guess} other classes by their import path, package.module.{name}")

    def registers(self, name: str) -> bool:
        """Says whether a name is registered in one of the groups."""
        return any(name in registry.names(group) for group in self.groups)

    def _unknown(self, name: str, where: str) -> UserError:
        group, last = self.groups[0], where.rpartition(".")[2]
        known = [each for group in self.groups for each in registry.names(group)]
        one = registry.group(group).one
        hint = f"list them: repro plugins {group}"
        return unknown(one if one == last else f"{one} for {where}", name, known, hint)

    def _imported(self, path: str, where: str) -> type | None:
        module, _, attribute = path.rpartition(".")
        try:
            cls: Any = pkgutil.resolve_name(f"{module}:{attribute}")
        except (ImportError, AttributeError) as error:
            if self.takes_text:
                return None
            raise UserError(f"{where}: {error}") from error
        if inspect.isclass(cls) and self._takes(cls):
            return cls
        if self.takes_text:
            return None
        raise UserError(f"{where}: {path} is no {' or '.join(base.__name__ for base in self.bases)}; name one that is")

    def _takes(self, cls: type) -> bool:
        return issubclass(cls, self.bases) or any(registry.group(group).holds(cls) for group in self.groups)


def _for_key(where: str, call: Any, *arguments: Any) -> Any:
    """A call whose UserError says for which key it was made."""
    try:
        return call(*arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _below(base: type) -> Iterator[type]:
    """The public classes that can be built among a class and those derived from it that have been imported."""
    if not inspect.isabstract(base) and not base.__name__.startswith("_"):
        yield base
    derived: list[type] = base.__subclasses__()
    for cls in derived:
        yield from _below(cls)


@functools.cache
def slot_of(hint: Any) -> Slot | None:
    """Returns the classes that a type hint declares, None where it declares none.

    Example:
        >>> from repro.kernels import Kernel
        >>> slot_of(Kernel | None).groups
        ('kernels',)
        >>> slot_of(dict[str, object])
    """
    bases = classes_in(hint)
    if not bases:
        return None
    for base in bases:
        allow(base)
    parts = list(parts_of(hint))
    return Slot(bases, tuple(registry.groups_of(*bases)), str in parts or PurePath in parts)


@functools.cache
def options_of(cls: type) -> dict[str, Any]:
    """Returns the constructor's arguments, those that it passes on to its bases included.

    Returns:
        Name -> parser action, which knows type hint, default and help text.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    options = settings_of(parser)
    for action in options.values():
        slot_of(getattr(action, "_typehint", None))
    return options


def settings_of(parser: Any) -> dict[str, Any]:
    """Returns the settings of a parser: key -> action, without those that only print help."""
    helping = ("help", "==SUPPRESS==")
    return {a.dest: a for a in parser._actions if a.dest not in helping and not a.dest.endswith(".help")}


def class_of(path: str) -> type:
    """Returns the class at an import path that was parsed before."""
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def allow(cls: type) -> str:
    """Lets jsonargparse import a class that has been chosen; it imports no other that a setting names.

    Returns:
        The import path to name it by.
    """
    parts = cls.__module__.split(".")
    paths = [f"{'.'.join(parts[:length])}.{cls.__qualname__}" for length in range(1, len(parts) + 1)]
    set_parsing_settings(import_path_allowlist=paths)  # also where a package passes it on: jsonargparse names it so
    return paths[-1]


set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=["*"])
