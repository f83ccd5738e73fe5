"""Every shipped config trains: two steps at reduced size, and EDM has its published size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from repro.checkpoints.native import read_checkpoint
from repro.cli.main import main
from repro.networks.song_unet import SongUNet

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "SongUNet": ("--model.network.width", "8", "--model.network.num_blocks", "1"),
    "UViT": ("--model.network.width", "16", "--model.network.depth", "2"),
    "MLP": ("--model.network.width", "16"),
    "GAN": ("--model.width", "4", "--model.discriminator_width", "4"),
    "VAE": ("--model.hidden", "8"),
    "CopyDetection": ("--model.widths=[4,4,4,4]", "--model.depths=[1,1,1,1]", "--model.stem_width=4", "--model.dims=8"),
}


def shipped() -> list[Path]:
    return sorted(CONFIGS.rglob("*.yaml"))


def test_there_are_configs():
    assert CONFIGS / "edm_cifar.yaml" in shipped()


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
    words += ["--trainer.max_steps", "2", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    assert main([*words, "--output", "run"]) == 0
    assert read_checkpoint(tmp_path / "run")["global_step"] == 2


def test_edm_has_its_published_size():
    arguments = yaml.safe_load((CONFIGS / "edm_cifar.yaml").read_text())["model"]["init_args"]["network"]["init_args"]
    with torch.device("meta"):
        network = SongUNet(32, 3, 0, **arguments)
    count = sum(p.numel() for p in network.parameters())
    assert round(count / 1e6, 1) == 55.7
