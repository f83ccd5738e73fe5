"""The study encoding: in miniature, its tables against noises found here."""

from __future__ import annotations

import functools

import pytest
import torch
from study_runs import Here, rows

from repro.analysis import encodings
from repro.cli.main import main
from repro.data import Digits
from repro.drawing import encode
from repro.metrics import BitsPerDimension
from repro.registry import load
from repro.samplers import Heun
from repro.studies import Trained, encoding, systems


def test_tables_are_those_of_the_noises(tmp_path, monkeypatch):
    names = ("mlp_edm", "ddpmpp_vp")
    monkeypatch.setitem(encoding._SIZES, "tiny", encoding._Size(held_out=40, images=24))
    monkeypatch.setattr(systems, "_DIGITS", dict.fromkeys(names, 1.0))
    monkeypatch.setattr(encodings, "BitsPerDimension", functools.partial(BitsPerDimension, steps=4))
    text = load("studies", "encoding")().run(tmp_path, "tiny", Here(40), main)
    pairs = {row["images"]: row for row in rows(tmp_path / "encoding.csv")}
    assert set(pairs) == {"training", "held out"}
    data = Digits(holdout=40)
    models = [Trained(name, tmp_path / "runs" / name).load() for name in names]
    for kind, images in (("training", data.images()[:24]), ("held out", data.held_out()[0][:24])):
        one, other = (encode(model, images, sampler=Heun(50)).flatten(1) for model in models)
        alike = torch.nn.functional.cosine_similarity(one, other) > 0.5
        assert float(pairs[kind]["rate"]) == alike.double().mean().item()
    table = rows(tmp_path / "systems.csv")
    assert [(row["images"], row["system"]) for row in table] == [(k, s) for k in pairs for s in names]
    for row in table:
        assert float(row["reconstruction_rms_median"]) < 0.1
        assert float(row["bits_standard_error"]) > 0
    assert "bits per dimension" in text
    assert (tmp_path / "encoding.png").is_file()


@pytest.mark.parametrize("scale", ["tiny", "cpu", "small", "paper"])
def test_every_system_keeps_the_same_images_out(scale, tmp_path):
    fits = [job for job in load("studies", "encoding")().jobs(tmp_path, scale) if job.command == "fit"]
    kept = {
        job.settings["data"]["init_args"]["holdout"]
        if "init_args" in job.settings["data"]
        else job.settings["data"]["holdout"]
        for job in fits
    }
    assert kept == {encoding._SIZES[scale].held_out}
