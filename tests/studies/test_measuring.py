"""The studies that measure: run in miniature, their tables hold what was measured, and mistakes are one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from study_runs import Here, rows

from repro.analysis import score_error, spectrum
from repro.checkpoints.loading import load_model
from repro.cli.main import main
from repro.denoisers import LowRankMixtureDenoiser, UnderKernel
from repro.kernels import EDM
from repro.noise import NoiseStream, draw_noise
from repro.registry import load
from repro.samplers.heun import Heun
from repro.studies import SCALES, jacobian, manifold, mog, systems


@pytest.fixture
def two_systems(monkeypatch):
    """The three architectures are two small ones."""
    monkeypatch.setattr(systems, "_DIGITS", {"mlp_edm": 1.0, "ddpmpp_vp": 1.0})


def test_mog(tmp_path, monkeypatch):
    monkeypatch.setitem(mog._SIZES, "tiny", mog._Size("mlp", (3,), (16, 500), 1, {}))
    monkeypatch.setitem(SCALES, "tiny", dataclasses.replace(SCALES["tiny"], seeds="0-9"))
    executor = Here(30)
    told = load("studies", "mog")().run(tmp_path, "tiny", executor, main)
    assert "d = 3: score error" in told
    table = rows(tmp_path / "mog.csv")
    assert [(int(row["d"]), int(row["N"])) for row in table] == [(3, 16), (3, 500)]
    model = load_model(tmp_path / "runs" / "d3_n500")
    assert model.data_record["args"]["rank"] == 3
    exact = LowRankMixtureDenoiser(EDM(), rank=3)
    from repro.records import rebuild

    x_0 = rebuild(model.data_record).held_out()[0]
    t = model.times.of_uniform((torch.arange(16) + 0.5) / 16, EDM())
    eps = draw_noise(range(1000), (3, 4, 4))
    right = torch.stack([score_error(model.denoiser, exact, x_0, eps, each).mean() for each in t]).mean()
    assert float(table[1]["score_error"]) == pytest.approx(right.item(), rel=1e-3)
    samples = rows(tmp_path / "samples.csv")
    assert [row["N"] for row in samples] == ["500"]
    assert float(samples[0]["relative_error"]) > 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"mog.png"}
    assert list((tmp_path / "results").glob("events*"))
    again = Here(30)
    load("studies", "mog")().run(tmp_path, "tiny", again, main)
    assert again.ran == []


def test_manifold(tmp_path, monkeypatch, two_systems):
    monkeypatch.setitem(manifold._SIZES, "tiny", manifold._Size(4, "0-29", 1))
    told = load("studies", "manifold")().run(tmp_path, "tiny", Here(2), main)
    assert "the maps agree on" in told
    chosen = json.loads((tmp_path / "measured" / "corners.json").read_text())
    assert len(set(chosen["classes"])) == 3
    assert len(set(chosen["seeds"])) == 3
    found = json.loads((tmp_path / "measured" / "ddpmpp_vp.json").read_text())
    regions, slopes = np.array(found["regions"]), np.array(found["slopes"])
    assert regions.shape == slopes.shape == (4, 4)
    model = load_model(tmp_path / "runs" / "ddpmpp_vp")
    assert found["corners"] == model.sample(chosen["seeds"]).tolist()
    table = {row["system"]: row for row in rows(tmp_path / "manifold.csv")}
    assert float(table["ddpmpp_vp"]["slope_highest"]) == slopes.max()
    assert float(table["ddpmpp_vp"]["none"]) == (regions == -1).mean()
    other = np.array(json.loads((tmp_path / "measured" / "mlp_edm.json").read_text())["regions"])
    (pair,) = rows(tmp_path / "agreement.csv")
    assert float(pair["agreement"]) == (regions == other).mean()
    assert (tmp_path / "manifold.png").is_file()


def test_jacobian(tmp_path, monkeypatch, two_systems):
    monkeypatch.setitem(jacobian._SIZES, "tiny", jacobian._Size(1, 3, 64, 1))
    monkeypatch.setattr(jacobian, "_STEPS", 3)
    told = load("studies", "jacobian")().run(tmp_path, "tiny", Here(2), main)
    assert "mlp_edm - ddpmpp_vp: mean cosine of predicted noises" in told
    table = rows(tmp_path / "ranks.csv")
    assert [row["system"] for row in table] == [name for name in ("mlp_edm", "ddpmpp_vp", "optimum") for _ in range(3)]
    denoiser = UnderKernel(load_model(tmp_path / "runs" / "ddpmpp_vp").denoiser, EDM(0.02, 50.0))
    steps = list(Heun(steps=3).trajectory(denoiser, NoiseStream([0])))
    for row, step in zip(table[3:6], steps, strict=True):
        right = spectrum(denoiser, step.x_t, step.t)
        assert float(row["ratio"]) == pytest.approx(right.ratio)
        assert float(row["rank"]) == right.rank.item()
    pairs = rows(tmp_path / "gradients.csv")
    assert len(pairs) == 9
    assert all(-1 <= float(row["gradient_cosine"]) <= 1 for row in pairs)
    assert (tmp_path / "jacobian.png").is_file()


@pytest.mark.parametrize("name", ["mog", "manifold", "jacobian"])
@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_every_scale_has_a_plan(name, scale, tmp_path):
    jobs = load("studies", name)().jobs(tmp_path, scale)
    seen = set()
    for job in jobs:
        assert seen.issuperset(job.after)
        seen.add(job.name)
    assert len(seen) == len(jobs)


def test_a_wrong_part_is_one_line(tmp_path, capsys):
    assert main(["study", "manifold", "--output", str(tmp_path / "x"), "--part", "cornrs"]) == 2
    told = capsys.readouterr().err
    assert "unknown part of manifold 'cornrs'; did you mean 'corners'" in told
    assert told.count("\n") == 1
