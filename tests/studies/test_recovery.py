"""The study recovery: its jobs, and in miniature its table against the banks."""

from __future__ import annotations

import pytest
import torch
from study_runs import Here, options, rows

from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.cli.main import main
from repro.metrics.functional.similarity import cosine
from repro.noise import parse_seeds
from repro.records import rebuild
from repro.registry import build, load
from repro.studies import recovery


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_a_student_shares_no_seed_with_its_teacher_and_learns_from_other_noises(scale, tmp_path):
    jobs = {job.name: job for job in recovery.Recovery().jobs(tmp_path, scale)}
    seen = set()
    for name, job in jobs.items():
        assert seen.issuperset(job.after)
        seen.add(name)
    system = recovery._SIZES[scale].systems[0].name
    teacher, student, drawn, compared = (
        jobs[f"{kind}_{system}_{role}"]
        for kind, role in (("fit", "teacher"), ("fit", "student"), ("draw", "images"), ("draw", "student"))
    )
    assert student.after == (drawn.name,)
    assert drawn.after == (teacher.name,)
    for option in ("seed_everything", "model.seed", "data.seed"):
        assert options(teacher)[option] != options(student)[option]
    assert not set(parse_seeds(drawn.settings["seeds"])) & set(parse_seeds(compared.settings["seeds"]))
    assert options(student)["data.path"] == drawn.settings["output"]


def test_recovery(tmp_path, monkeypatch):
    tiny = recovery._SIZES["tiny"]
    monkeypatch.setitem(recovery._SIZES, "tiny", tiny._replace(systems=tiny.systems[:1], bank=60, noises=20))
    told = load("studies", "recovery")().run(tmp_path, "tiny", Here(20), main)
    assert "mlp_edm: teacher - student: RP" in told
    table = {row["with"]: row for row in rows(tmp_path / "recovery.csv")}
    assert list(table) == ["student", "same images", "other half", "mixture"]
    teacher, student = (Bank.open(tmp_path / "banks" / f"mlp_edm_{role}").images for role in ("teacher", "student"))
    first, second = (images.flatten(1).double() / 127.5 - 1 for images in (teacher, student))
    assert float(table["student"]["rp"]) == (cosine(first, second) > 0.95).double().mean().item()
    assert (
        float(table["student"]["mae"])
        == ((teacher.double() - student).abs().flatten(1).mean(1) < 15).double().mean().item()
    )
    data = {
        role: rebuild(load_model(tmp_path / "runs" / f"mlp_edm_{role}").data_record)
        for role in ("teacher", "student", "same_images", "other_half")
    }
    drawn = Bank.open(tmp_path / "banks" / "mlp_edm_images")
    assert torch.equal(data["student"].images().flatten(1).sort(0).values, drawn.images.flatten(1).sort(0).values)
    assert data["same_images"].fingerprint() == data["teacher"].fingerprint()
    digits = build("data", "Digits").images().flatten(1).unique(dim=0)
    halves = [data[role].images().flatten(1) for role in ("teacher", "other_half")]
    assert len(torch.cat(halves)) == len(torch.cat(halves).unique(dim=0)) == 1796 <= len(digits)
    assert (tmp_path / "recovery.png").is_file()
    assert list((tmp_path / "results").glob("events*"))
