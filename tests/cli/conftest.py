"""Folders with trained runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import CONFIG, run_here


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, current for the whole module, with the config ``tiny.yaml``."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.yaml").write_text(CONFIG)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Path:
    """The workplace after ``repro fit --config tiny.yaml``: its run is runs/tiny."""
    done = run_here("fit", "--config", "tiny.yaml")
    assert done.code == 0, done
    return workplace


@pytest.fixture(scope="module")
def conditional(trained: Path) -> Path:
    """The workplace with a conditional model too, runs/classes."""
    done = run_here("fit", "--config", "tiny.yaml", "--task", "conditional", "--name", "classes")
    assert done.code == 0, done
    return trained
