"""Study of the baselines: who is compared with whom, what is reported, and commands that can be run."""

from __future__ import annotations

import csv

import pytest
import torch
import yaml
from PIL import Image
from study_runs import options

from repro.banks import BankWriter
from repro.cli.main import main
from repro.registry import load


def test_baselines_are_trained_twice_and_differ_in_seeds_only(tmp_path):
    jobs = {job.name: job for job in load("studies", "baselines")().jobs(tmp_path, "tiny")}
    fits = [name for name in jobs if name.startswith("fit_")]
    assert len(fits) == 10
    for family in ("wgan_gp", "sngan", "vae", "vampprior"):
        one, other = (options(jobs[f"fit_digits_{family}{again}"]) for again in ("", "_seed1"))
        seeds = {"seed_everything": 1, "model.seed": 1, "data.seed": 1}
        assert other == {**one, **seeds, "output": f"{one['output']}_seed1"}
    for name in fits:
        assert jobs[name.replace("fit_", "draw_")].settings["seeds"] == "0-999"


def test_the_report_counts_the_pairs_of_the_figure(tmp_path):
    """Banks of noise agree by chance only; both diffusion models are given the same images."""
    study, generator = load("studies", "baselines")(), torch.Generator().manual_seed(0)
    names = [job.name.removeprefix("draw_") for job in study.jobs(tmp_path, "tiny") if job.name.startswith("draw_")]
    shared = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for name in names:
        drawn = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
        writer = BankWriter(tmp_path / "banks" / name, {"seeds": list(range(60)), "image_shape": (1, 8, 8)})
        writer.write(range(60), shared if name in ("digits_mlp_edm", "digits_ddpmpp_vp") else drawn)
    text = study.reported(tmp_path, "tiny")
    with open(tmp_path / "baselines.csv") as file:
        rows = {(row["first"], row["second"]): row for row in csv.DictReader(file)}
    assert list(rows) == [
        ("wgan_gp", "wgan_gp_seed1"),
        ("sngan", "sngan_seed1"),
        ("vae", "vae_seed1"),
        ("vampprior", "vampprior_seed1"),
        ("wgan_gp", "sngan"),
        ("vae", "vampprior"),
        ("mlp_edm", "ddpmpp_vp"),
    ]
    for pair, row in rows.items():
        assert float(row["rp"]) == (1.0 if pair == ("mlp_edm", "ddpmpp_vp") else 0.0)
        assert float(row["low"]) <= float(row["rp"]) <= float(row["high"])
        assert float(row["control"]) == 0.0
        assert int(row["n"]) == 60
    assert "Digits: mlp_edm - ddpmpp_vp: RP 1.000" in text
    assert min(Image.open(tmp_path / "baselines.png").size) > 300
    assert (tmp_path / "results_digits" / "rp.csv").is_file()


def test_commands_of_larger_scales_can_be_run(tmp_path, capsys):
    """Every option exists, and the settings that result are those of the scale."""
    jobs = {job.name: job for job in load("studies", "baselines")().jobs(tmp_path, "small")}
    expected = {
        "fit_cifar10_wgan_gp_cifar_seed1": ("GAN", 32, 20_000),
        "fit_mnist_vampprior_mnist": ("VAE", 28, 50_000),
        "fit_mnist_edm_cifar": ("SongUNet", 28, 20_000),
        "fit_mnist_ddpmv3_cifar": ("SongUNet", 28, 20_000),
    }
    for name, (sized, image_size, steps) in expected.items():
        with pytest.raises(SystemExit, match="0"):
            main([*jobs[name].words(tmp_path), "--print_config"])
        settings = yaml.safe_load(capsys.readouterr().out)
        model = settings["model"]["init_args"].get("network", settings["model"])
        assert (model["class_path"], model["init_args"]["image_size"]) == (sized, image_size)
        assert settings["trainer"]["max_steps"] == steps
