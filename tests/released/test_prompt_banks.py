"""Text to image from the command line: banks of one prompt, compared at the paper's threshold."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

from pipelines import pipeline

import repro
from repro import registry
from repro.banks import Bank
from repro.cli.main import main

TINY = ("--model.steps", "3", "--seeds", "0-39", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "no")


def test_two_pipelines_under_one_prompt(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def said(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        if code:
            assert (code, err.count("\n")) == (2, 1), err
        return out if code == 0 else err

    def bank(name, prompt, *options):
        words = ("--model", "TextToImage", "--model.pipeline", name, "--model.prompt", prompt)
        out = said("predict", *words, *TINY, *options)
        assert out.startswith("bank: "), out
        return out.split()[1]

    pipeline(tmp_path / "sd-a")
    pipeline(tmp_path / "sd-b", seed=1, strength=20.0)
    one, other, changed = bank("sd-a", "a red cat"), bank("sd-b", "a red cat"), bank("sd-a", "a blue dog")
    assert [path.split("/")[1] for path in (one, other)] == ["TextToImage-sd-a", "TextToImage-sd-b"]
    manifest = Bank.open(one).manifest
    assert manifest.model["args"] | {"size": None} == {
        "pipeline": "sd-a", "prompt": "a red cat", "negative_prompt": "", "scheduler": "DDIM", "steps": 3,
        "guidance": 7.5, "size": None,
    }  # fmt: skip
    assert (manifest.sampler["name"], manifest.guidance) == ("DDIMScheduler", 7.5)
    assert manifest.model_fingerprint != Bank.open(other).manifest.model_fingerprint
    again = bank("sd-a", "a red cat", "--shard_size", "13", "--output", "again")

    told = said(
        "compare", one, other, again, "--names", "a", "b", "again", "--threshold", "0.4", "--descriptor", "Pixels"
    )
    assert "RP (Pixels > 0.4, n = 40" in told
    found = repro.compare([one, again, other], registry.build("descriptors", "Pixels"), threshold=0.4).scores["RP"]
    assert found.rates[0, 1] == 1
    assert found.control_rates[0, 1] < 0.2
    assert found.control_rates[0, 2] < found.rates[0, 2] < 1
    assert "prompt of bank" in said("compare", one, changed, "--threshold", "0.4")
    scale = said(
        "predict", "--model", "TextToImage", "--model.pipeline", "sd-a", "--model.prompt", "x", "--guidance", 3
    )
    assert "type --model.guidance 3" in scale
