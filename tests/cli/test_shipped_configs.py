"""Every shipped config trains at reduced size: the paper's systems as the README says, the others with less width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from repro.checkpoints.native import read_checkpoint
from repro.cli.configs import layers
from repro.cli.main import main
from repro.studies.systems import CONDITIONAL_SYSTEMS, SYSTEMS

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "SongUNet": ("--model.network.width", "8", "--model.network.num_blocks", "1"),
    "UViT": ("--model.network.width", "16", "--model.network.depth", "2"),
    "MLP": ("--model.network.width", "16"),
    "GAN": ("--model.width", "4", "--model.discriminator_width", "4"),
    "VAE": ("--model.hidden", "8"),
    "CopyDetection": ("--model.widths=[4,4,4,4]", "--model.depths=[1,1,1,1]", "--model.stem_width=4", "--model.dims=8"),
}


QUIET = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false")
OVERLAYS = CONFIGS / "small"
ALL = SYSTEMS | CONDITIONAL_SYSTEMS
SYSTEM_CONFIGS = [*(f"{system.config}.yaml" for system in ALL.values()), "finetune_cifar.yaml"]


def shipped() -> list[Path]:
    return sorted(set(CONFIGS.rglob("*.yaml")) - {CONFIGS / name for name in SYSTEM_CONFIGS} - set(OVERLAYS.iterdir()))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the teachers that the systems' configs name are trained, for two steps."""
    folder = tmp_path_factory.mktemp("systems")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for teacher in {system.teacher for system in SYSTEMS.values() if system.teacher}:
            assert train(SYSTEMS[teacher].config) == 2
    return folder


def train(config: str, *words: str) -> int:
    """Trains a system at small scale as the README says; the optimiser steps in its checkpoint."""
    files = ("--config", str(CONFIGS / f"{config}.yaml"), "--config", str(OVERLAYS / "digits.yaml"))
    small = ("--data.batch_size", "4", "--trainer.max_steps", "2")
    assert main(["fit", *files, *small, *words, *QUIET]) == 0
    folder = words[words.index("--output") + 1] if "--output" in words else Path("runs") / config
    return read_checkpoint(folder)["global_step"]


@pytest.mark.parametrize("name", ALL)
def test_a_system_trains_at_small_scale(name, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    config = ALL[name].config
    if (workplace / "runs" / config).is_dir():
        return
    short = ("--model.stage_images", "4", "--trainer.max_steps", "7") if name.startswith("Progressive") else ()
    assert train(config, *short) == (7 if short else 2)
    status = json.loads((workplace / "runs" / config / "run.json").read_text())
    assert status["num_classes"] == (10 if name in CONDITIONAL_SYSTEMS else 0)


def test_fine_tuning_trains_at_small_scale(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    train("edm_cifar", "--output", "runs/edm_cifar100")
    assert train("finetune_cifar") == 2
    assert (
        read_checkpoint(Path("runs/finetune_cifar"))["repro"]["training"]["record"]["args"]["parameters"] == "attention"
    )


@pytest.mark.parametrize("overlay", sorted(OVERLAYS.iterdir()), ids=lambda path: path.stem)
@pytest.mark.parametrize("config", SYSTEM_CONFIGS)
def test_every_overlay_fits_every_system(overlay, config):
    """Each system has some of the classes that an overlay has settings for."""
    named = {}
    *_, (_, settings) = [*layers(str(CONFIGS / config), named), *layers(str(overlay), named)]
    assert settings["model"]
    assert "by_class" not in settings


@pytest.mark.parametrize("config", shipped(), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_shipped_config_runs(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = yaml.safe_load(config.read_text())["model"]
    if model["class_path"] == "Exact":
        assert main(["predict", "--config", str(config), "--seeds", "0-1", "--output", "bank"]) == 0
        assert (tmp_path / "bank" / "manifest.json").is_file()
        return
    part = model["init_args"].get("network", model)
    small = SMALL[part["class_path"]]
    words = ["fit", "--config", str(config), "--data", "Digits", "--data.batch_size", "4", *small]
    assert main([*words, "--trainer.max_steps", "2", *QUIET, "--output", "run"]) == 0
    assert read_checkpoint(tmp_path / "run")["global_step"] == 2
