"""Configs by name: those that come with this package, and those that installed packages bring.

A package brings its own by an entry point of the group ``repro.configs`` whose value is a package of YAML files:
``[project.entry-points."repro.configs"]`` with the line ``mine = "my_package.configs"``. A file ``edm_faces.yaml``
there is the config ``edm_faces``, and one in a folder below, ``small/faces.yaml``, the config ``small/faces``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import repro
from repro.cli.source import package_folder
from repro.errors import UserError, nearest

__all__ = ["NamedConfig", "config_path", "named_configs"]

_GROUP = "repro.configs"
_LIST = "list them: repro plugins configs"


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
    configs = named_configs()
    named = [config for config in configs if config.name == wanted and config.path is not None]
    if len(named) > 1:
        packages = " and ".join(sorted(config.package for config in named))
        raise UserError(f"config {wanted} is brought by {packages}; give the path of one of them, or uninstall one")
    if named or path.exists():
        return named[0].path if named else path
    names = [config.name for config in configs if config.path is not None]
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
