"""The study of descriptors: its table holds what is measured, and mistakes are one line."""

from __future__ import annotations

import csv

import pytest
import timm

from repro.cli.main import main
from repro.data.digits import Digits
from repro.descriptors.evaluation import EDITS, detect_copies
from repro.descriptors.pixels import Pixels
from repro.studies import descriptors
from repro.studies.descriptors import DIGITS_HELD_OUT


@pytest.fixture
def offline(monkeypatch):
    """timm has no weights, and the study is small."""
    create = timm.create_model

    def without_weights(name, pretrained=False, **more):
        if pretrained:
            raise OSError("no network")
        return create(name, **more)

    monkeypatch.setattr(timm, "create_model", without_weights)
    monkeypatch.setitem(descriptors._SIZES, "tiny", descriptors._Size(8, 40, "test_resnet"))


def test_the_table_is_what_is_measured(tmp_path, monkeypatch, capsys, offline):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "Digits", "--data.subset", "50", "--descriptor", "Pixels", "--descriptor.center", "false"]
    assert main(["study", "descriptors", "--output", "out", *words]) == 0
    told = capsys.readouterr().out
    assert "timm:test_resnet is untrained here: cannot get the weights" in told
    rows = list(csv.DictReader((tmp_path / "out" / "digits.csv").open(newline="")))
    found = detect_copies(Pixels(), Digits(holdout=DIGITS_HELD_OUT).held_out()[0][:40], 8)
    ours = [row for row in rows if row["descriptor"] == "Pixels"]
    assert [row["edit"] for row in ours] == [*EDITS, "all"]
    for row, expected in zip(ours, found.rows(), strict=True):
        for key in ("micro_ap", "recall", "false_positive_rate", "strict_recall", "threshold"):
            assert float(row[key]) == pytest.approx(expected[key], abs=1e-12)
    assert (tmp_path / "out" / "given_digits.csv").is_file()
    names = {row["descriptor"] for row in rows}
    assert names == {"Pixels", "SmallSSCD(digits)", "timm:test_resnet (untrained)", "Pixels(center=False)"}
    assert (tmp_path / "out" / "digits.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--descriptor", "SmallSSCE"], "did you mean 'SmallSSCD'"),
        (["--descriptor", "SmallSSCD", "--descriptor.weights", "digit"], "did you mean 'digits'"),
        (["--data", "ImageArchive", "--data.path", "none.tar"], "none.tar"),
        (["--dat", "Digits"], "--dat"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "descriptors", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
