"""Images that are not square, or have other channels than 1 and 3, are trained on, drawn and compared by command."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from commands import run_here

from repro.banks import Bank
from repro.cli.main import main
from repro.descriptors import sscd

DATA = "--data ImageArray --data.channels first --data.batch_size 16 --data.path set.npy"
SHORT = "--trainer.max_steps 4 --trainer.logger false"


@pytest.mark.parametrize(
    ("shape", "configs"),
    [((1, 8, 12), ("digits/mlp_edm", "digits/ddpmpp_vp")), ((5, 16, 16), ("digits/ddpmpp_vp", "digits/uvit_flow"))],
)
def test_a_set_of_another_shape_from_fit_to_compare(shape, configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (64, *shape), dtype=np.uint8)
    np.save("set.npy", images)
    for name, config in zip("ab", configs, strict=True):
        assert main(f"fit --config {config} {DATA} {SHORT} --output {name}".split()) == 0
        assert main(["predict", "--ckpt_path", name, "--seeds", "0-7", "--output", f"bank_{name}"]) == 0
        bank = Bank.open(tmp_path / f"bank_{name}")
        assert tuple(bank.images.shape) == (8, *shape)
        assert len(bank.images.flatten(1).unique(dim=0)) == 8
    words = ["compare", "bank_a", "bank_b", "--descriptor", "Pixels", "--output", "out"]
    assert main(words) == 0
    with open("out/rp.csv") as file:
        (row,) = list(csv.DictReader(file))[:1]
    assert row["n"] == "8"
    if shape[0] == 5:
        monkeypatch.setattr(sscd, "packaged_file", lambda weights: None)  # its own weights are not there either
        sscd_of = ["--descriptor", "SSCD", "--descriptor.weights", "sscd_disc_large"]
        for command in (["compare", "bank_a", "bank_b", "--output", "other"], ["test", "--ckpt_path", "a"]):
            assert run_here(*command, *sscd_of).mistake == "images have 5 channels; SSCD takes 1 or 3"
