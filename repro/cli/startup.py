"""Lightning imported without the packages that torchmetrics imports at once for metrics that nobody asked for.

Importing Lightning imports torchmetrics, and that imports torchvision, transformers and scipy where they are installed:
half of the time. Nothing is taken away here: each of them is imported when a name of it is first used.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import pkgutil
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

__all__ = ["import_lightning"]

_LATER = ("scipy", "torchvision", "transformers")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the import of some packages, and of modules below them, with stand-ins, until it gives them back."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = set(packages)

    def package_of(self, name: str) -> str | None:
        """The package that a dotted name lies in, while there is a stand-in for it."""
        return next((each for each in self.packages if name == each or name.startswith(f"{each}.")), None)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if self.package_of(name) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        pass

    def give_back(self, name: str) -> None:
        """Forgets the stand-ins of the package that a name lies in: its next import is the real one."""
        package = self.package_of(name)
        if package is None:
            return
        for module in [each for each in sys.modules if self.package_of(each) == package]:
            parent, _, child = module.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)
            del sys.modules[module]
        self.packages.remove(package)


class _Name:
    """A dotted name below a stand-in: the real one is imported when it is called, derived from or asked about."""

    def __init__(self, path: str, finder: _Finder) -> None:
        self._path, self._finder = path, finder

    def _real(self) -> Any:
        self._finder.give_back(self._path)
        return pkgutil.resolve_name(self._path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path, finder = self._path, self._finder
        return _Name(f"{path}.{name}", finder) if finder.package_of(path) else getattr(self._real(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._real(),)


class _Module(ModuleType):
    """Stands for a module; once its package has been given back it passes everything on to the real one."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_Name(self.__name__, self._finder), name)


def import_lightning() -> None:
    """Imports Lightning in half of the time: scipy, torchvision and transformers wait until they are used.

    Example:
        >>> import_lightning()
        >>> "lightning" in sys.modules
        True
    """
    if "lightning" in sys.modules or "torchmetrics" in sys.modules:
        return
    importlib.import_module("torch")
    finder = _Finder(package for package in _LATER if package not in sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("lightning")
    finally:
        sys.meta_path.remove(finder)
        for package in _LATER:
            finder.give_back(package)
