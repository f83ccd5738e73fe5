"""Plug-ins of a package that is not installed: classes, their entry points, and a group of their own."""

from __future__ import annotations

import abc
import importlib.metadata
import sys
import types

import pytest
from torch import nn

from repro import registry
from repro.kernels import VE, Kernel
from repro.registry import Group, Plugin

MODULE = "repro_fake_plugin"


class Gadget(Plugin):
    """Takes every kind of plain argument, and another plug-in."""

    def __init__(
        self,
        size: int,
        factor: float = 0.5,
        name: str = "x",
        flags: list = (1, 2),
        table: dict | None = None,
        inner: Kernel | None = None,
        untold=None,
        **more,
    ):
        self.size, self.table, self.inner, self.untold, self.more = size, table, inner, untold, more


class Child(Gadget):
    def __init__(self, size: int, extra: bool = True):
        super().__init__(size * 2, factor=9.0)
        self.extra = extra


class Grandchild(Child):
    """Has no constructor of its own."""


class Warm(VE):
    """A kernel of a third party."""


class Open(Gadget):
    """Leaves a method open."""

    @abc.abstractmethod
    def turn(self): ...

    @abc.abstractmethod
    def halt(self): ...


class Bare(nn.Module):
    """A plain module of a third party, without any base class of ours."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = nn.Linear(width, 1)


def point(group, name, target, package="fake-package", version="1.2"):
    """An entry point of a package."""
    made = importlib.metadata.EntryPoint(name, target, f"repro.{group}")
    dist = types.SimpleNamespace(name=package, version=version) if package else None
    object.__setattr__(made, "dist", dist)
    return made


@pytest.fixture
def plug_in(monkeypatch):
    """Adds entry points beside the real ones, the module they point to, and the group ``gadgets``."""
    module = types.ModuleType(MODULE)
    for cls in (Gadget, Child, Grandchild, Warm, Open, Bare):
        monkeypatch.setattr(cls, "__module__", MODULE)
        setattr(module, cls.__name__, cls)
    module.GADGETS = Group("gadgets", f"{MODULE}:Gadget")
    monkeypatch.setitem(sys.modules, MODULE, module)
    real = importlib.metadata.entry_points

    def add(*points):
        def found(**parameters):
            mine = (point("groups", "gadgets", f"{MODULE}:GADGETS"), *points)
            return [*real(**parameters), *(p for p in mine if p.group == parameters["group"])]

        monkeypatch.setattr(importlib.metadata, "entry_points", found)
        registry.refresh()

    yield add
    registry.refresh()
