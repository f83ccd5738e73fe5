"""The wheel: built from the checkout and installed outside of it, it has everything that the quickstart needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import repro

ROOT = Path(repro.__file__).parents[1]


def run(*words, cwd, **environment):
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The commands of an environment that holds the wheel, and borrows the other packages of this one."""
    pytest.importorskip("setuptools", minversion="70", reason="building needs it: pip install 'setuptools>=70'")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("repro", "configs", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    offline = ("--no-deps", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", *offline, source, "-w", folder, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, *folder.glob("*.whl"), cwd=folder)
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip())
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    shutil.rmtree(source)
    return folder / "env" / "bin"


def test_configs_are_inside_and_found_by_name(installed, tmp_path):
    listed = run(installed / "repro", "plugins", "configs", cwd=tmp_path)
    shipped = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    paths = {line.split("\t")[1]: line.split("\t")[2] for line in listed.splitlines()[1:]}
    assert paths.keys() == shipped
    assert all(Path(path).is_relative_to(installed.parent) for path in paths.values())


def test_the_quickstart_runs(installed, tmp_path):
    (tmp_path / "short.yaml").write_text("trainer: {max_steps: 1, logger: false}\n")
    words = ("study", "quickstart", "--seeds", "0-3", "--overlay", "short.yaml", "--workers", "1", "--output", "out")
    told = run(installed / "repro", *words, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert "picture: out/quickstart.png" in told
    assert len(list((tmp_path / "out" / "jobs").glob("*.done"))) == 18
    imported = run(installed / "python", "-c", "import repro; print(repro.__file__)", cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(installed.parent)
