"""Every public folder exports its public names, and importing a folder imports nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import repro
from repro import registry

FOLDERS = ["repro", *(item.name for item in pkgutil.walk_packages(repro.__path__, "repro.") if item.ispkg)]
PUBLIC = [name for name in FOLDERS if getattr(importlib.import_module(name), "__all__", None)]


def _folder(module: str) -> str:
    """The folder of a module; a module at the top of the package is its own."""
    parent = module.rpartition(".")[0]
    return module if module in FOLDERS or parent == "repro" else parent


@pytest.mark.parametrize("group", registry.group_names())
def test_the_folder_of_every_registered_class_exports_it(group):
    for entry in registry.entries(group):
        if entry.package != "repro":
            continue
        module, _, name = entry.target.partition(":")
        folder = importlib.import_module(_folder(module))
        assert name in folder.__all__, f"{folder.__name__} does not export {name}; add it to its __init__.pyi"
        assert getattr(folder, name) is registry.load(group, entry.name)


@pytest.mark.parametrize("folder", PUBLIC)
def test_dir_shows_the_public_names_and_each_is_there(folder):
    module = importlib.import_module(folder)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = module.Nonsense


def test_importing_every_folder_imports_nothing_heavy():
    light = [name for name in PUBLIC if name != "repro.metrics.functional"]
    heavy = {"torch", "lightning", "numpy", "jsonargparse"}
    code = f"import sys, {', '.join(light)}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
