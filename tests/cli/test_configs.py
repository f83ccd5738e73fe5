"""Configs by name: found in any folder, near misses, and those of other packages."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from commands import run_here

from repro.cli.configs import config_path, named_configs
from repro.cli.main import main
from repro.errors import UserError


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two packages that say they bring configs; only the first is there, and it claims a name of this package too."""
    folder = tmp_path / "site" / "faces" / "configs"
    (folder / "small").mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "edm_faces.yaml").write_text("# EDM on faces.\nconfig: digits/mlp_edm\ndata: {subset: 7}\n")
    (folder / "edm_cifar.yaml").write_text("data: Digits\n")
    meta = tmp_path / "site" / "faces-2.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: faces\nVersion: 2.0\n")
    (meta / "entry_points.txt").write_text("[repro.configs]\nfaces = faces.configs\ngone = no_such_package.configs\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()


def test_a_shipped_config_is_found_in_any_folder(elsewhere):
    done = run_here("fit", "--config", "edm_cifar", "--config", "small/digits", "--print_config")
    assert yaml.safe_load(done.out)["model"]["init_args"]["network"]["init_args"]["width"] == 16


def test_every_file_of_the_folder_has_a_name():
    folder = config_path("edm_cifar").parent
    names = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    assert {"edm_cifar", "digits/optimum", "small/cifar"} <= names
    assert {config.name for config in named_configs()} >= names


def test_a_file_at_that_path_goes_before_a_name(elsewhere):
    (elsewhere / "edm_cifar").mkdir()
    assert config_path("edm_cifar").name == "edm_cifar.yaml"
    (elsewhere / "edm_cifar").rmdir()
    (elsewhere / "edm_cifar").write_text("data: Digits")
    assert config_path("edm_cifar") == Path("edm_cifar")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("edm_cifra", "unknown config 'edm_cifra'; did you mean 'edm_cifar'? list them: repro plugins configs"),
        ("configs/edm_cifar.yaml", "configs have names, which work in any folder: --config edm_cifar"),
        ("configs/digits/mlp_edm.yaml", "configs have names, which work in any folder: --config digits/mlp_edm"),
        ("configs/edm_cifra.yaml", "did you mean the config edm_cifar? (list them: repro plugins configs)"),
        ("mine/config.yam", "unknown config 'mine/config.yam'"),
    ],
)
def test_a_near_miss_names_the_nearest(wanted, message, elsewhere):
    assert message in run_here("fit", "--config", wanted).mistake


def test_the_list_says_what_each_is(capsys):
    assert main(["plugins", "configs"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    (mine,) = (line for line in lines if line[1] == "edm_cifar")
    assert (mine[0], mine[3]) == ("configs", "repro")
    assert mine[5].startswith("EDM on CIFAR-10")


def test_a_package_brings_its_own_without_being_imported(installed, elsewhere, capsys):
    done = run_here("fit", "--config", "edm_faces", "--print_config")
    assert yaml.safe_load(done.out)["data"]["init_args"]["subset"] == 7
    assert main(["plugins", "configs"]) == 0
    lines = {tuple(line.split("\t")[i] for i in (1, 3, 5)) for line in capsys.readouterr().out.splitlines()}
    assert ("edm_faces", "faces", "EDM on faces.") in lines
    assert ("gone", "faces", "BROKEN: no package named 'no_such_package.configs'") in lines
    assert ("edm_cifar", "faces", "BROKEN: repro claims this name too; uninstall one of them") in lines


def test_a_name_that_two_packages_bring_is_refused(installed):
    with pytest.raises(UserError, match="config edm_cifar is brought by faces and repro; give the path"):
        config_path("edm_cifar")


def test_another_sampler_says_which_steps_it_keeps() -> None:
    words = ("fit", "--config", "edm_cifar", "--print_config", "--data", "Digits", "--model.sampler")
    assert "Euler keeps what the config says of Heun: steps 18" in run_here(*words, "Euler").err
    assert "keeps what" not in run_here(*words, "Heun").err
