"""``repro encode`` from the command line."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from commands import run_here

QUICK = ("--data", "Digits", "--images", "30")


def test_noises_and_tables(trained):
    done = run_here(
        "encode", "runs/tiny", "runs/tiny/checkpoints/last.ckpt", *QUICK, "--output", "codes", "--bits", "true"
    )
    assert done.code == 0, done
    assert np.load("codes/tiny-1.npy").shape == (30, 1, 8, 8) if not (trained / "codes/tiny.npy").exists() else True
    with open("codes/pairs.csv", newline="") as file:
        (pair,) = csv.DictReader(file)
    assert float(pair["rate"]) == 1.0
    assert 0 <= float(pair["chance"]) < 1
    with open("codes/encoding.csv", newline="") as file:
        first, _ = csv.DictReader(file)
    assert float(first["bits_per_dimension"]) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a run or checkpoint"),
        (("runs/tiny",), "name the images: --data Digits"),
        (("runs/none", *QUICK), "no"),
        (("runs/tiny", "--data", "Digits", "--images", "5000"), "but the data have 1797"),
        (("runs/tiny", *QUICK, "--sampler", "Ancestral"), "Ancestral draws noise"),
        (("runs/tiny", *QUICK, "--sampler", "DPMSolver"), "singlestep of order 1 or 2"),
        (("runs/tiny", "--data", "Digits", "--data.resize", "4", "--images", "30"), "images are (1, 4, 4)"),
    ],
)
def test_mistakes(trained, words, message):
    assert message in run_here("encode", *words, "--output", "nothing").mistake
    assert not list(trained.glob("nothing/*.npy"))
