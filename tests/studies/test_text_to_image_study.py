"""The study of text to image: run in miniature, its table holds what the plain functions give."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

from pipelines import pipeline
from study_runs import Here, options, rows

from repro.banks import Bank
from repro.cli.main import main
from repro.descriptors.pixels import Pixels
from repro.metrics import functional
from repro.models.text_to_image import TextToImage
from repro.registry import load
from repro.studies import text_to_image


@pytest.fixture
def quick(monkeypatch):
    """Two pipelines, the second going on from the first, and an autoencoder, trained for two steps."""
    made = {name: text_to_image._TINY[name]._replace(steps=2) for name in ("v1-1", "v1-2")}
    monkeypatch.setattr(text_to_image, "_TINY", made)
    monkeypatch.setattr(text_to_image, "_AUTOENCODER_STEPS", 2)
    monkeypatch.setattr("repro.comparison.write.figures", lambda comparison: ())


def test_pipelines_of_digits_are_made_drawn_and_compared(quick, tmp_path):
    study = load("studies", "text_to_image")(seeds="0-11", steps=2)
    told = study.run(tmp_path, "tiny", Here(2), main)
    assert "'a photograph of the digit three', 12 noises" in told
    banks = [Bank.open(tmp_path / "banks" / name) for name in ("v1-1", "v1-2")]
    features = [Pixels().features(bank.images) for bank in banks]
    table = {row["threshold"]: row for row in rows(tmp_path / "text_to_image.csv")}
    assert {*table} == {"0.95", "0.4"}
    for threshold, row in table.items():
        assert float(row["rate"]) == functional.reproducibility_score(*features, float(threshold))
        assert int(row["n"]) == 12
        assert row["control_rate"]
    assert (tmp_path / "text_to_image.png").is_file()
    assert list((tmp_path / "results").glob("events*"))
    one, other = (TextToImage(str(tmp_path / "made" / name), "x", steps=2) for name in ("v1-1", "v1-2"))
    assert torch.equal(
        one.text_encoder.state_dict()["final_layer_norm.weight"],
        other.text_encoder.state_dict()["final_layer_norm.weight"],
    )
    assert not torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)
    words = one._made.tokenizer
    assert len(words("a photograph of the digit three").input_ids) == 8
    again = Here(2)
    study.run(tmp_path, "tiny", again, main)
    assert again.ran == []


def test_any_two_pipelines_under_one_prompt(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("repro.comparison.write.figures", lambda comparison: ())
    pipeline(tmp_path / "sd-a")
    pipeline(tmp_path / "sd-b", seed=1, strength=20.0)
    words = ["study", "text_to_image", "a=sd-a", "sd-b", "--prompt", "a red cat", "--seeds", "0-5", "--steps", "2"]
    assert main([*words, "--descriptor", "Pixels", "--scale", "paper", "--output", "out"]) == 0
    assert "'a red cat', 6 noises" in capsys.readouterr().out
    (row,) = rows("out/text_to_image.csv")
    assert (row["first"], row["second"], row["threshold"]) == ("a", "sd-b", "0.4")
    assert Bank.open("out/banks/a").manifest.guidance == 7.5


def test_the_paper_is_planned_by_name(tmp_path):
    jobs = [options(job) for job in load("studies", "text_to_image")().jobs(tmp_path, "paper")]
    assert sorted(job["model.pipeline"] for job in jobs) == [
        f"CompVis/stable-diffusion-v1-{version}" for version in (1, 2, 3, 4)
    ]
    for job in jobs:
        assert job["model.prompt"] == "a photograph of an astronaut riding a horse"
        assert (job["seeds"], job["model.guidance"], job["model.steps"]) == ("0-999", 7.5, 50)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sd-a"], "name two or more"),
        (["x/sd", "y/sd"], "name them apart"),
        (["a/b=sd", "c"], "cannot be the name of a folder"),
        (["--seeds", "3"], "two noises or more"),
        (["--scale", "small"], "no scale small"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys):
    assert main(["study", "text_to_image", *words, "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_one_line(monkeypatch, tmp_path, capsys):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "diffusers" else find(name, *rest)
    )
    assert main(["study", "text_to_image", "--dry_run", "--output", str(tmp_path / "out")]) == 2
    assert "study text_to_image needs diffusers: pip install diffusers" in capsys.readouterr().err
