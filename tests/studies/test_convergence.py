"""The study convergence: in miniature, its tables against the banks themselves."""

from __future__ import annotations

import dataclasses

import pytest
from study_runs import Here, options, rows

from repro.banks import Bank
from repro.checkpoints.native import read_checkpoint
from repro.cli.main import main
from repro.metrics.functional.similarity import cosine
from repro.registry import load
from repro.studies import SCALES, convergence, systems


def normal(bank):
    pixels = bank.images.flatten(1).double()
    return pixels - pixels.mean(1, keepdim=True)


def test_rows_are_those_of_banks_drawn_from_kept_checkpoints(tmp_path, monkeypatch):
    names = ("mlp_edm", "ddpmpp_vp")
    tiny = convergence._SIZES["tiny"]
    monkeypatch.setitem(convergence._SIZES, "tiny", tiny._replace(batch=16, steps=(4, 8)))
    monkeypatch.setattr(systems, "_DIGITS", dict.fromkeys(names, 1.0))
    monkeypatch.setitem(SCALES, "tiny", dataclasses.replace(SCALES["tiny"], seeds="0-23"))
    text = load("studies", "convergence")().run(tmp_path, "tiny", Here(8), main)
    table = {(row["images_seen"], row["first"], row["second"]): row for row in rows(tmp_path / "convergence.csv")}
    ends = [(name, f"{name}, in the end") for name in names]
    assert set(table) == {("64", *names), ("128", *names), *(("64", *pair) for pair in ends)}
    for step in (4, 8):
        for name in names:
            kept = read_checkpoint(tmp_path / "runs" / name / "checkpoints" / f"step={step}.ckpt")
            assert kept["repro"]["training"]["images_seen"] == 16 * step
    banks = {key: normal(Bank.open(tmp_path / "banks" / key)) for key in ("mlp_edm_4", "mlp_edm_8", "ddpmpp_vp_4")}
    for one, other, key in (("mlp_edm_4", "ddpmpp_vp_4", names), ("mlp_edm_4", "mlp_edm_8", ends[0])):
        alike = cosine(banks[one], banks[other]) > 0.95
        assert float(table["64", *key]["rp"]) == alike.double().mean().item()
    copies = {(row["images_seen"], row["system"]) for row in rows(tmp_path / "memorization.csv")}
    assert copies == {(seen, name) for seen in ("64", "128") for name in names}
    assert "128 images seen" in text
    assert (tmp_path / "convergence.png").is_file()


@pytest.mark.parametrize("scale", ["tiny", "cpu", "small", "paper"])
def test_every_drawn_step_is_kept_and_steps_mean_as_many_images(scale, tmp_path):
    jobs = {job.name: options(job) for job in load("studies", "convergence")().jobs(tmp_path, scale)}
    fits = [settings for name, settings in jobs.items() if name.startswith("fit_")]
    assert len({settings["data.batch_size"] for settings in fits}) == 1
    assert len({settings["model.seed"] for settings in fits}) == len(fits) == 3
    for settings in fits:
        (keep,) = settings["trainer.callbacks"]
        every = keep["init_args"]["every_n_steps"]
        steps = convergence._SIZES[scale].steps
        assert keep["init_args"]["keep"] is True
        assert all(step % every == 0 for step in steps)
        assert settings["trainer.max_steps"] == steps[-1]
