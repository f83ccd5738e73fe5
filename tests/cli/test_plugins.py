"""Plug-ins of other packages: used by name the moment they are installed, reported when they are broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import run_here

import repro
from repro import registry
from repro.banks import Bank
from repro.checkpoints.native import read_checkpoint


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
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that ``repro new my-plugins`` writes."""
    folder = tmp_path_factory.mktemp("source") / "package"
    done = run_here("new", "my-plugins", "--output", str(folder))
    assert done.code == 0, done
    assert f"pip install -e {folder}" in done.out
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that package, installed by pip from its own pyproject.toml without network."""
    pytest.importorskip("setuptools", reason="installing without build isolation needs setuptools here")
    source, target = tmp_path_factory.mktemp("copy") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(written, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("name", ["My-Plugins", "3d", "a b", "../up", "a--b", ""])
def test_a_package_needs_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is no name of a package; give small letters" in run_here("new", name).mistake
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_written_over(written: Path) -> None:
    before = sorted(written.rglob("*"))
    assert "exists; give another name" in run_here("new", "my-plugins", "--output", str(written)).mistake
    assert sorted(written.rglob("*")) == before


def test_a_new_package_is_listed(installed: Path, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in call("plugins", path=installed, cwd=tmp_path).stdout.splitlines()]
    mine = {(line[0], line[1]): line[5] for line in lines if line[3] == "my-plugins"}
    assert len(mine) == 13
    assert mine["networks", "TwoConvolutions"] == "Two convolutions with the noise level as a further channel."
    assert not any(about.startswith("BROKEN") for about in mine.values())
    assert {group for group, _ in mine} >= {
        "samplers",
        "modules",
        "data",
        "checkpoints",
        "studies",
        "configs",
        "tasks",
        "executors",
    }


def test_a_new_package_obeys_its_laws(written: Path, installed: Path) -> None:
    """As its author would test it; the laws stand in its own tests."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(written / "tests")],
        capture_output=True,
        text=True,
        cwd=written,
        env=os.environ | {"PYTHONPATH": str(installed)},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout


def test_everything_in_a_new_package_works_by_its_name(installed: Path, tmp_path: Path) -> None:
    """All commands of one process, in order; each line begins with the words after ``repro``."""
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.logger", "false")
    conditional = (
        "--config",
        "two_convolutions",
        "--task",
        "conditional",
        "--name",
        "classes",
    )
    commands = [
        ("fit", "--config", "two_convolutions", "--trainer.max_steps", "3", *quiet),
        ("predict", "--ckpt_path", "runs/two_convolutions", "--seeds", "0-7", "--output", "a"),
        ("predict", "--ckpt_path", "runs/two_convolutions", "--seeds", "0-7", "--output", "b", "--sampler", "Heun"),
        ("compare", "a", "b", "--descriptor", "Thumbnail", "--metric", "SameBrightness", "--output", "both"),
        ("fit", *conditional, "--trainer.max_steps", "2", *quiet),
        ("predict", "--ckpt_path", "runs/classes", "--task", "first_class", "--seeds", "0-3", "--output", "c"),
        ("test", "--task", "inpaint", "--ckpt_path", "runs/two_convolutions", "--problem.operator", "EverySecondRow",
         "--seeds", "0-3", "--descriptor", "Thumbnail"),
        ("import", "weights.pth", "--output", "imported"),
        ("predict", "--ckpt_path", "imported", "--seeds", "0-3", "--output", "d"),
        ("study", "two_widths", "--executor", "OneByOne", "--output", "study"),
    ]  # fmt: skip
    code = (
        "import json, sys, torch; from repro.cli.main import main; from repro.registry import build; "
        "torch.save(build('networks', 'TwoConvolutions', image_size=8, channels=1).state_dict(), 'weights.pth'); "
        "print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))"
    )
    env = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0] * len(commands), done.stdout + done.stderr
    record = read_checkpoint(tmp_path / "runs" / "two_convolutions")["repro"]["training"]["record"]
    assert (record["name"], record["args"]["kernel"]["name"]) == ("AbsoluteError", "Sine")
    assert record["args"]["network"]["args"]["width"] == 16
    assert len(Bank.open(tmp_path / "a")) == 8
    assert "SameBrightness" in done.stdout
    assert (tmp_path / "both" / "samebrightness.csv").is_file()
    assert (tmp_path / "study" / "results" / "rp.csv").is_file()


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


def test_the_page_of_plug_ins_shows_the_package_as_it_is() -> None:
    page = (Path(repro.__file__).parent / "plugins.md").read_text()
    template = Path(repro.__file__).parent / "cli" / "template"
    blocks = re.findall(r"```(python|yaml|toml)\n(.*?)```", page, flags=re.S)
    shown = {text for kind, text in blocks if kind != "toml"}
    sources = [path for path in template.rglob("*") if path.suffix in (".py", ".yaml") and path.parent.name != "tests"]
    assert shown == {path.read_text() for path in sources if path.name != "__init__.py"}
    settings = (template / "pyproject.toml").read_text().replace("plugin_example", "my_models")
    for kind, text in blocks:
        assert kind != "toml" or text.replace("plugin_example", "my_models").strip() in settings
