"""The study trajectory: in miniature, its table against walks done here."""

from __future__ import annotations

import torch
from study_runs import Here, rows

from repro.cli.main import main
from repro.images import to_uint8
from repro.metrics.functional.similarity import cosine
from repro.noise import draw_noise
from repro.registry import load
from repro.studies import Trained, systems, trajectory


def normal(images):
    pixels = images.flatten(1).double()
    return pixels - pixels.mean(1, keepdim=True)


def test_the_table_counts_what_systems_take_for_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "_DIGITS", {"mlp_edm": 1.0, "ddpmpp_vp": 1.0})
    monkeypatch.setitem(trajectory._NOISES, "tiny", 24)
    text = load("studies", "trajectory")().run(tmp_path, "tiny", Here(60), main)
    table = {(float(row["level"]), row["first"], row["second"]): row for row in rows(tmp_path / "trajectory.csv")}
    assert len(table) == 16 * 3
    model = Trained("mlp_edm", tmp_path / "runs" / "mlp_edm").load()
    noise = draw_noise(range(24), (1, 8, 8))
    steps = list(model.sampler.trajectory(model.denoiser, noise))
    ends = to_uint8(steps[-1].x_s)
    first, later = table[60.0, "mlp_edm", "in the end"], table[0.05, "mlp_edm", "in the end"]
    for row, level in ((first, 60.0), (later, 0.05)):
        nearest = min(steps, key=lambda step: abs(step.t.log() - torch.tensor(level).log()))
        alike = cosine(normal(to_uint8(nearest.x_0)), normal(ends)) > 0.95
        assert abs(float(row["rate"]) - alike.double().mean().item()) <= 2 / 24
        assert float(row["low"]) <= float(row["rate"]) <= float(row["high"])
    assert float(later["rate"]) > float(later["control"])
    assert "noise level 0.05" in text
    assert (tmp_path / "trajectory.png").is_file()
