"""The studies regimes and theory: in miniature, their tables against the banks and the weights themselves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from study_runs import Here, options, rows

from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.cli.main import main
from repro.images import to_float
from repro.metrics.functional.similarity import cosine
from repro.noise import draw_noise
from repro.records import rebuild
from repro.registry import build, load
from repro.studies import SCALES, regimes
from repro.studies.jobs import is_done


@pytest.fixture
def small(monkeypatch):
    tiny = regimes._SYSTEMS["tiny"]
    systems = {name: tiny.systems[name] for name in ("MLP-96", "MLP-192")}
    monkeypatch.setitem(regimes._SYSTEMS, "tiny", tiny._replace(systems=systems, counts=(8, 40)))
    monkeypatch.setitem(SCALES, "tiny", dataclasses.replace(SCALES["tiny"], seeds="0-23"))


def normal(bank):
    pixels = bank.images.flatten(1).double()
    return pixels - pixels.mean(1, keepdim=True)


@pytest.mark.parametrize("scale", ["tiny", "cpu", "small", "paper"])
def test_every_training_has_its_own_seed_and_nested_images(scale, tmp_path):
    size = regimes._SYSTEMS[scale]
    jobs = {job.name: job for job in load("studies", "regimes")().jobs(tmp_path, scale)}
    assert len(size.systems) >= 2
    assert len(jobs) == len(size.counts) * (2 * len(size.systems) + 2)
    for count in size.counts:
        seeds = []
        for system in size.systems:
            settings = options(jobs[f"fit_{system}_n{count}"])
            assert settings["data.subset"] == count
            assert "data.subset_seed" not in settings
            seeds.append(settings["model.seed"])
        assert len(set(seeds)) == len(seeds)


def test_at_the_scale_cpu_systems_and_optimum_have_the_same_images(tmp_path):
    jobs = {
        job.name: job for job in load("studies", "regimes")().jobs(tmp_path / "study", SCALES["cpu"].on(str(tmp_path)))
    }
    fit, optimum = options(jobs["fit_DDPM++-16_n512"]), options(jobs["draw_optimum_n512"])
    assert (fit["data"], fit["data.path"], fit["data.subset"]) == ("ImageArchive", str(tmp_path), 512)
    assert fit["config"][-1] == "small/cifar16"
    of_optimum = {key.removeprefix("model.denoiser.images"): value for key, value in optimum.items()}
    assert (of_optimum[""], of_optimum[".path"], of_optimum[".subset"]) == ("ImageArchive", str(tmp_path), 512)
    assert of_optimum[".resize"] == 16


def test_regimes_then_theory_in_one_folder(small, tmp_path):
    executor = Here(60)
    told = load("studies", "regimes")().run(tmp_path, "tiny", executor, main)
    assert "RP MLP-96 - MLP-192" in told
    pairs = {(row["N"], row["first"], row["second"]): row for row in rows(tmp_path / "regimes.csv")}
    copies = {(row["N"], row["system"]): row for row in rows(tmp_path / "memorization.csv")}
    assert (len(pairs), len(copies)) == (2 * 6, 2 * 4)
    for count in (8, 40):
        banks = {
            name: Bank.open(tmp_path / "banks" / f"{name}_n{count}")
            for name in ("MLP-96", "MLP-192", *regimes.FORMULAS)
        }
        train = build("data", "Digits", subset=count).images()
        for (_, one, other), row in ((key, row) for key, row in pairs.items() if key[0] == str(count)):
            alike = cosine(normal(banks[one]), normal(banks[other])) > 0.95
            assert float(row["rp"]) == alike.double().mean().item()
            assert float(row["low"]) <= float(row["rp"]) <= float(row["high"])
        nearest = (banks["optimum"].images[:, None].double() - train[None]).flatten(2).norm(dim=2).amin(1)
        assert nearest.max() <= 8
        assert float(copies[str(count), "optimum"]["gl"]) == 0
    before = list(executor.ran)
    told = load("studies", "theory")().run(tmp_path, "tiny", executor, main)
    assert executor.ran[len(before) :] == [f"measure_{s}_n{n}" for n in (8, 40) for s in ("MLP-96", "MLP-192")]
    assert told.count("RP with the optimum") == 4
    table = {(row["N"], row["system"]): row for row in rows(tmp_path / "theory.csv")}
    assert all(table[key]["rp"] == pairs[(*key, "optimum")]["rp"] for key in table)
    assert all(table[key]["gaussian_rp"] == pairs[(*key, "gaussian")]["rp"] for key in table)
    assert all(float(row["trained_loss"]) > float(row["optimal_loss"]) > 0 for row in table.values())
    assert is_done(load("studies", "theory")().jobs(tmp_path, "tiny")[-1], tmp_path)


def test_losses_of_theory_are_those_of_a_loop(small, tmp_path):
    load("studies", "theory")().run(tmp_path, "tiny", Here(5), main)
    found = [row for row in rows(tmp_path / "levels.csv") if (row["system"], row["N"]) == ("MLP-96", "8")]
    module = load_model(tmp_path / "runs" / "MLP-96_n8")
    x_0 = to_float(rebuild(module.data_record).images()).double()
    eps, (trained, optimal) = draw_noise(range(512), x_0.shape[1:]).double(), torch.zeros(2, dtype=torch.float64)
    sigma, data = float(found[7]["ratio"]), module.denoiser.parameterization.sigma_data
    for i in range(512):
        x_t = x_0[i % 8] + sigma * eps[i]
        weight = (sigma**2 + data**2) / (sigma * data) ** 2
        with torch.no_grad():
            guess = module.denoiser.denoise(x_t[None], module.denoiser.kernel.time_of_ratio(torch.tensor(sigma)))[0]
        nearness = torch.softmax(-(x_t - x_0).square().flatten(1).sum(1) / (2 * sigma**2), 0)
        best = (nearness[:, None, None, None] * x_0).sum(0)
        trained += weight * (guess - x_0[i % 8]).square().mean() / 512
        optimal += weight * (best - x_0[i % 8]).square().mean() / 512
    assert float(found[7]["trained"]) == pytest.approx(trained.item(), rel=1e-4)
    assert float(found[7]["optimal"]) == pytest.approx(optimal.item(), rel=1e-6)
