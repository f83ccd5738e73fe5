"""Plug-ins of other packages: used by name the moment they are installed, reported when they are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import run_here

from repro import registry
from repro.banks import Bank
from repro.checkpoints.native import read_checkpoint

EXAMPLE = Path(__file__).parents[1] / "plugin_example"


def call(*words: str, path: Path, cwd: Path) -> subprocess.CompletedProcess:
    """``repro WORDS`` in a fresh process that finds packages in ``path`` too."""
    code = "import sys; from repro.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path)},
        timeout=240,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, installed by pip from its own pyproject.toml without network."""
    pytest.importorskip("setuptools", reason="installing without build isolation needs setuptools here")
    source, target = tmp_path_factory.mktemp("source") / "example", tmp_path_factory.mktemp("site")
    for file in EXAMPLE.rglob("*"):
        if file.suffix in (".py", ".toml"):
            copy = source / file.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_the_example_package_is_listed(installed: Path, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in call("plugins", path=installed, cwd=tmp_path).stdout.splitlines()]
    mine = {line[1]: line for line in lines if line[3] == "repro-plugin-example"}
    assert set(mine) == {"TwoConvolutions", "Sine", "SameBrightness"}
    assert mine["TwoConvolutions"][4:] == ["1.2.3", "Two convolutions with the noise level as a further channel."]


def test_the_example_is_trained_sampled_and_compared_by_its_names(installed: Path, tmp_path: Path) -> None:
    names = ["--model.network", "TwoConvolutions", "--model.network.width", "4", "--model.kernel", "Sine"]
    rest = ["--model.parameterization", "V", "--model.sampler", "Heun", "--model.sampler.steps", "2"]
    small = [
        "--data.subset",
        "64",
        "--data.batch_size",
        "8",
        "--trainer.max_steps",
        "3",
        "--trainer.accelerator",
        "cpu",
    ]
    done = call("fit", *names, *rest, *small, path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "TwoConvolutions-Digits"
    record = read_checkpoint(run)["repro"]["training"]["record"]["args"]
    assert record["network"] == {
        "group": "networks",
        "name": "TwoConvolutions",
        "args": {"image_size": 8, "channels": 1, "num_classes": 0, "width": 4},
    }
    assert record["kernel"]["name"] == "Sine"
    words = ["predict", "--seeds", "0-7", "--output", "bank", "--sampler", "Euler", "--sampler.steps", "3"]
    done = call(*words, path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "using runs/TwoConvolutions-Digits" in done.stderr
    assert len(Bank.open(tmp_path / "bank")) == 8
    words = ["compare", "bank", "runs/TwoConvolutions-Digits", "--descriptor", "Pixels", "--output", "both"]
    done = call(*words, "--metric", "SameBrightness", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SameBrightness" in done.stdout
    assert (tmp_path / "both" / "samebrightness.csv").is_file()


def distribution(folder: Path, package: str, points: str, **modules: str) -> None:
    """Puts an installed package into a folder: its metadata, its entry points, its modules."""
    info = folder / f"{package}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(points)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with plug-ins that are broken, each in its own way, and one that claims a taken name."""
    site = tmp_path / "site"
    points = (
        "[repro.samplers]\nGone = no_module_here:Gone\nLost = half:Lost\nNeedy = needy:Needy\nSyntax = syntax:Syntax\n"
    )
    distribution(
        site,
        "broken",
        points,
        half="class Lots:\n    pass\n",
        needy="import not_installed_anywhere\nclass Needy:\n    'Fine.'\n",
        syntax="class Syntax(\n",
    )
    distribution(site, "twin", "[repro.kernels]\nVP = twin:VP\n", twin="class VP:\n    'Mine.'\n")
    monkeypatch.syspath_prepend(str(site))
    registry.refresh()
    yield site
    registry.refresh()


def test_broken_plugins_are_listed_with_their_reason(faulty: Path) -> None:
    lines = [line.split("\t") for line in run_here("plugins").out.splitlines()]
    about = {(line[1], line[3]): line[5] for line in lines}
    assert about["Gone", "broken"] == "BROKEN: no module named 'no_module_here'"
    assert about["Lost", "broken"] == "BROKEN: half has no 'Lost'; did you mean 'Lots'?"
    assert about["Needy", "broken"] == "BROKEN: needy imports 'not_installed_anywhere', which is not installed"
    assert about["Syntax", "broken"].startswith("BROKEN: ")
    assert "syntax.py, line 1" in about["Syntax", "broken"]
    assert "Heun" in {line[1] for line in lines if line[5] and not line[5].startswith("BROKEN")}


def test_a_name_claimed_twice_is_listed_under_both_packages(faulty: Path) -> None:
    lines = [line.split("\t") for line in run_here("plugins", "kernels").out.splitlines()]
    about = {line[3]: line[5] for line in lines if line[1] == "VP"}
    assert about == {
        "repro": "BROKEN: twin claims this name too; uninstall one of them",
        "twin": "BROKEN: repro claims this name too; uninstall one of them",
    }


def test_broken_plugins_are_told_only_when_asked_for(faulty: Path, workplace: Path) -> None:
    done = run_here("fit", "--config", "tiny.yaml", "--print_config")
    assert done.code == 0
    assert yaml.safe_load(done.out)["model"]["init_args"]["kernel"]["class_path"] == "EDM"
    assert done.err == ""
    asked = run_here("fit", "--config", "tiny.yaml", "--model.sampler", "Needy").mistake
    assert "'Needy' of package broken cannot be imported" in asked
    assert "not_installed_anywhere" in asked
    twice = run_here("fit", "--config", "tiny.yaml", "--model.kernel", "VP").mistake
    assert "'VP' is claimed by " in twice
    assert "repro (repro.kernels:VP)" in twice
    assert "twin (twin:VP)" in twice
