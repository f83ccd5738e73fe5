"""Config files with settings by class: written out for the classes of the files before them."""

import pytest
import yaml
from commands import run_here

from repro.cli.configs import layers
from repro.errors import UserError

SYSTEM = {
    "model": {
        "class_path": "Diffusion",
        "init_args": {"network": {"class_path": "MLP", "init_args": {"width": 512, "depth": 4}}, "kernel": "EDM"},
    }
}
OVERLAY = {
    "by_class": {"MLP": {"width": 8}, "UViT": {"depth": 2}, "Diffusion": {"lr": 0.5}, "EDM": {"sigma_max": 40.0}},
    "model": {"lr": 0.1, "ema_halflife": 1000},
    "data": {"class_path": "Digits"},
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, settings in (("system", SYSTEM), ("overlay", OVERLAY)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def written(*configs):
    """The settings of some configs in order, each written out for the classes before it."""
    named = {}
    return [settings for config in configs for _, settings in layers(config, named)]


def test_only_the_classes_that_are_there_are_set_and_win(files):
    before, after = written("system.yaml", "overlay.yaml")
    assert before == SYSTEM
    assert after == {
        "model": {"lr": 0.5, "ema_halflife": 1000, "network": {"width": 8}, "kernel": {"sigma_max": 40.0}},
        "data": {"class_path": "Digits"},
    }


def test_a_later_file_may_change_the_class(files):
    (files / "other.yaml").write_text("model: {network: {class_path: UViT}}")
    for other in ("other.yaml", '{"model": {"network": {"class_path": "UViT"}}}'):
        assert written("system.yaml", other, "overlay.yaml")[-1]["model"]["network"] == {"depth": 2}


@pytest.mark.parametrize("words", [["--config", "overlay.yaml"], ["--config=overlay.yaml"], ["-c", "overlay.yaml"]])
def test_every_way_to_name_a_config(files, words):
    done = run_here("fit", "-c", "system.yaml", *words, "--model.lr=3", "--print_config")
    model = yaml.safe_load(done.out)["model"]["init_args"]
    assert (model["network"]["init_args"]["width"], model["lr"], model["ema_halflife"]) == (8, 3, 1000)


def test_a_class_typed_before_counts_as_named(files):
    words = ["--config", "system.yaml", "--model.network", "UViT", "--model.network.patch_size=2"]
    done = run_here("fit", *words, "--config", "overlay.yaml", "--print_config")
    assert yaml.safe_load(done.out)["model"]["init_args"]["network"]["init_args"]["depth"] == 2


@pytest.mark.parametrize("start", ["system.yaml", ["system.yaml", "overlay.yaml"]])
def test_a_config_comes_after_those_that_it_starts_from(files, start):
    (files / "mine.yaml").write_text(yaml.safe_dump({"config": start, "model": {"lr": 0.25}}))
    done = run_here("fit", "--config", "mine.yaml", "--print_config")
    model = yaml.safe_load(done.out)["model"]["init_args"]
    assert (
        model["network"]["init_args"] | {"width": 512 if start == "system.yaml" else 8}
        == (model["network"]["init_args"])
    )
    assert model["lr"] == 0.25


def test_a_config_may_start_from_a_shipped_one_and_have_settings_by_class(files):
    (files / "mine.yaml").write_text(yaml.safe_dump({"config": "digits/mlp_edm", "by_class": {"MLP": {"width": 8}}}))
    (started, settings), (own, written) = layers("mine.yaml", {})
    assert started.as_posix().endswith("configs/digits/mlp_edm.yaml")
    assert settings["model"]["class_path"] == "Diffusion"
    assert (own.name, written) == ("mine.yaml", {"model": {"network": {"width": 8}}})


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"by_class": {"MLPP": {"width": 8}}}, "by_class of config file bad.yaml 'MLPP'; did you mean 'MLP'"),
        ({"by_class": {"UViT": {"depth": 8}}}, "has settings for UViT, and no config before it names one of them"),
        ({"by_class": {"MLP": 8}}, "by_class must be of the form"),
        ({"by_class": ["MLP"]}, "by_class must be of the form"),
        ({"config": {"of": "edm_cifar"}}, "config must be the name of a config, or a list of names"),
        ({"config": "edm_cifra"}, "unknown config 'edm_cifra'; did you mean 'edm_cifar'"),
        ({"config": "bad.yaml"}, "starts from another one itself"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(files, overlay, message):
    (files / "bad.yaml").write_text(yaml.safe_dump(overlay))
    with pytest.raises(UserError, match=message) as caught:
        written("system.yaml", "bad.yaml")
    assert "\n" not in str(caught.value)


def test_from_the_command_line(files):
    done = run_here("fit", "--config", "system.yaml", "--config", "overlay.yaml", "--print_config")
    model = yaml.safe_load(done.out)["model"]["init_args"]
    assert (model["network"]["init_args"]["width"], model["network"]["init_args"]["depth"]) == (8, 4)
    assert (model["lr"], model["ema_halflife"]) == (0.5, 1000)
    assert model["kernel"]["init_args"]["sigma_max"] == 40


def test_a_wrong_argument_is_told_by_its_key(files):
    (files / "overlay.yaml").write_text(yaml.safe_dump({"by_class": {"MLP": {"widht": 8}}}))
    told = run_here("fit", "--config", "system.yaml", "--config", "overlay.yaml").mistake
    assert "unknown key model.network.widht: MLP has no argument 'widht'; did you mean 'width'?" in told
