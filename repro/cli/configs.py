"""Configs: names of YAML files that this and other packages bring, and the layers of settings that they stand for.

A package brings its own by an entry point of the group ``repro.configs`` whose value is a package of YAML files:
``[project.entry-points."repro.configs"]`` with the line ``mine = "my_package.configs"``. A file ``edm_faces.yaml``
there is the config ``edm_faces``, and one in a folder below, ``small/faces.yaml``, the config ``small/faces``.

In a file the key ``config`` names what it starts from, and ``by_class`` goes over whatever system came before it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import repro
from repro import records, registry
from repro.cli.source import package_folder
from repro.errors import UserError, nearest, unknown
from repro.files import parse_yaml, read_yaml

__all__ = ["NamedConfig", "config_path", "layers", "named_configs", "read_config", "starts_from"]

_GROUP = "repro.configs"
_LIST = "list them: repro plugins configs"
_KEY = "by_class"
_START = "config"


@dataclass(frozen=True)
class NamedConfig:
    """A config that has a name.

    Attributes:
        name: What ``--config`` takes, for example ``edm_cifar`` or ``small/digits``.
        path: The YAML file; None where the package that should bring it cannot be looked into.
        package: Name of the package that brings it.
        version: Version of that package.
        problem: Why the package cannot be looked into; empty when nothing is wrong.
    """

    name: str
    path: Path | None
    package: str
    version: str
    problem: str = ""

    @property
    def about(self) -> str:
        """First line of the comment that the file begins with, without its ``#``; empty when there is none."""
        if self.path is None:
            return ""
        with open(self.path, encoding="utf-8", errors="replace") as file:
            first = file.readline()
        return first.removeprefix("#").strip() if first.startswith("#") else ""


def named_configs() -> list[NamedConfig]:
    """Lists the configs of this package and of all installed ones, sorted by name.

    Example:
        >>> "edm_cifar" in [config.name for config in named_configs()]
        True
    """
    version = importlib.metadata.version("repro")
    listed = [*_in_folder(_own_folder(), "repro", version)]
    for point in sorted(set(importlib.metadata.entry_points(group=_GROUP)), key=lambda each: each.value):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        try:
            listed += _in_folder(package_folder(point.value), package, version)
        except UserError as error:
            listed.append(NamedConfig(point.name, None, package, version, str(error)))
    return sorted(listed, key=lambda config: config.name)


def _own_folder() -> Path:
    """The configs of this package: inside it where it is installed, beside it in a checkout."""
    package = Path(repro.__file__).parent
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def _in_folder(folder: Path, package: str, version: str) -> Iterator[NamedConfig]:
    for path in folder.rglob("*.yaml"):
        yield NamedConfig(path.relative_to(folder).with_suffix("").as_posix(), path, package, version)


def config_path(wanted: str) -> Path:
    """Finds the config file that ``--config`` names: a file at that path, else the config of that name.

    Args:
        wanted: A path, or a name such as ``edm_cifar``.

    Raises:
        UserError: neither a file nor a name; or two packages bring a config of that name.

    Example:
        >>> config_path("small/digits").name
        'digits.yaml'
    """
    path = Path(wanted)
    if path.is_file():
        return path
    configs = [(config, config.path) for config in named_configs() if config.path is not None]
    named = [(config.package, file) for config, file in configs if config.name == wanted]
    if len(named) > 1:
        packages = " and ".join(sorted(package for package, _ in named))
        raise UserError(f"config {wanted} is brought by {packages}; give the path of one of them, or uninstall one")
    if named or path.exists():
        return named[0][1] if named else path
    names = [config.name for config, _ in configs]
    if path.suffix in (".yaml", ".yml"):
        raise _no_file(path, names)
    near = nearest(wanted, names)
    raise UserError(f"unknown config {wanted!r}{f'; did you mean {near!r}?' if near else ';'} {_LIST}")


def _no_file(path: Path, names: list[str]) -> UserError:
    """The error for a path at which there is nothing, with the nearest file beside it or the config of its name."""
    files = sorted(file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = nearest(path.name, files)
    if near:
        guess = f"did you mean {path.parent / near}?"
    elif (stem := path.with_suffix("").as_posix().removeprefix("configs/")) in names:
        guess = f"configs have names, which work in any folder: --config {stem}"
    else:
        near = nearest(stem, names)
        beside = f"there are {', '.join(files[:8])}" if files else _LIST
        guess = f"did you mean the config {near}? ({_LIST})" if near else beside
    return UserError(f"config file {path} does not exist; {guess}")


def starts_from(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Lists the configs that a config file starts from, its key ``config``: one name or path, or a list of them.

    Raises:
        UserError: the key holds something else.
    """
    named = settings.get(_START, [])
    named = [named] if isinstance(named, str) else named
    if not (isinstance(named, list) and all(isinstance(each, str) for each in named)):
        raise UserError(f"config file {path}: {_START} must be the name of a config, or a list of names")
    return named


def layers(wanted: str, named: dict[str, str], depth: int = 0) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Yields the settings that a config stands for: those of the configs that it starts from, then its own.

    A file with ``config: NAME`` or ``config: [NAME, ...]`` comes after those configs, which must not build on others
    in turn. A file with ``by_class: {Class: {argument: value}}`` is written out for the classes before it: where a
    config before it names one of the classes, its arguments become the ones set there; they win over the file's other
    settings.

    Args:
        wanted: Name or path of a config, or settings as JSON.
        named: Key -> class, as named before; those that the config names are added.
        depth: How many configs have been left to get here.

    Yields:
        The file, None for JSON, and its settings.

    Raises:
        UserError: no such config, one that cannot be read, ``config`` or ``by_class`` of another form, an unknown
            class in ``by_class``, or no config before it that names any.
    """
    if wanted.lstrip().startswith("{"):
        settings = parse_yaml(wanted, "--config")
        named |= dict(_classes(settings))
        yield None, settings
        return
    path = config_path(wanted)
    settings = read_config(path)
    if _START in settings and depth:
        raise UserError(f"config file {path} starts from another one itself; name that one too: config: [NAME, {path}]")
    for start in starts_from(path, settings):
        yield from layers(start, named, depth + 1)
    own = {key: value for key, value in settings.items() if key != _START}
    own = _for_classes(path, own, named) if _KEY in own else own
    named |= dict(_classes(own))
    yield path, own


def read_config(path: Path) -> dict[str, Any]:
    """Reads the settings of a config file: a mapping from keys to plain values.

    Raises:
        UserError: it is a folder, cannot be read, or holds something else than ``key: value``.
    """
    if path.is_dir():
        names = sorted(file.name for file in path.glob("*.y*ml"))
        inside = f"; there are {', '.join(names[:8])} in it" if names else ""
        raise UserError(f"config file {path} is a folder, not a config file{inside}")
    settings = read_yaml(path, "config file")
    if not isinstance(settings, dict):
        held = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise UserError(f"config file {path} holds {held}; it must hold settings, key: value")
    return {str(key): value for key, value in settings.items()}


def _classes(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The places of a config file where a class may be named, and what stands there."""
    for top in settings:
        for key, value in records.flat(settings[top], top).items():
            if isinstance(value, str):
                yield key, value.rpartition(".")[2]


def _for_classes(path: Path, settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    by_class = settings[_KEY]
    if not (isinstance(by_class, Mapping) and all(isinstance(each, Mapping) for each in by_class.values())):
        raise UserError(f"config file {path}: {_KEY} must be of the form {{Class: {{argument: value}}}}")
    known = [name for group in registry.group_names() for name in registry.names(group)]
    for name in by_class:
        if name not in known:
            raise unknown(f"class in {_KEY} of config file {path}", str(name), known)
    places = [(key, name) for key, name in named.items() if name in by_class]
    if not places:
        raise UserError(
            f"config file {path} has settings for {', '.join(by_class)}, and no config before it names one of "
            f"them; type --config NAME --config {path}"
        )
    result = {key: value for key, value in settings.items() if key != _KEY}
    for key, name in places:
        result = records.merged(result, records.nested({key: dict(by_class[name])}))
    return result
