"""Conditions are checked once, and every table begins with them."""

import csv
import json

import pytest
import torch

from repro.banks import Bank
from repro.comparison import Conditions, compare
from repro.comparison.tables import TABLES
from repro.errors import UserError

CELLS = ["descriptor", "threshold", "mae_threshold", "n", "data", "control_seed", "confidence"]
RIGHT = {"descriptor": {"name": "Pixels"}, "threshold": 0.8, "mae_threshold": 15.0, "n": 10, "data": "Digits"}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"threshold": 1.5}, "threshold 1.5 is outside [-1, 1]"),
        ({"mae_threshold": 256}, "MAE threshold 256 is outside [0, 255]"),
        ({"confidence": 1}, "confidence 1 is outside (0, 1)"),
        ({"n": 0}, "0 noises"),
    ],
)
def test_numbers_outside_their_range_are_one_line(wrong, word):
    with pytest.raises(UserError) as caught:
        Conditions(**RIGHT | wrong)
    assert word in str(caught.value)


@pytest.fixture(scope="module")
def result():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (20, 1, 6, 6), generator=generator).to(torch.uint8) for _ in range(4)]
    data = {"group": "data", "name": "Digits", "args": {"subset": 20, "batch_size": 128, "classes": None}}
    banks = [Bank.from_images(each, data=data) for each in images[:3]]
    names = ["n", "threshold", "c"]  # names that are also columns
    metrics = ["FrechetDistance"]
    return compare(banks, "Pixels", images[3], names=names, metrics=metrics, control_seed=7, confidence=0.9)


def test_every_file_begins_with_its_conditions(result, tmp_path):
    files = result.write(tmp_path)
    common = ["Pixels", "0.8", "15.0", "20", "trained on Digits(subset=20): 20 images", "7", "0.9"]
    tables = [path for path in files if path.suffix == ".csv"]
    assert {path.stem for path in tables} == {"rp", "mae", "pairs", "values", "curves", "paired", "gl"}
    for path in tables:
        head, *rows = csv.reader(path.open(newline=""))
        assert head[:7] == CELLS
        assert len(set(head)) == len(head)
        for row in rows:
            row[1] = "0.8" if path.stem == "curves" else row[1]  # the threshold of a curve's point is its own
            assert row[:7] == common
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert [key for key in record if key != "format"][:7] == CELLS
    rows = list(csv.reader((tmp_path / "rp.csv").open(newline="")))
    assert rows[0][7:] == ["system", "n (system)", "threshold (system)", "c"]
    assert [float(rate) for rate in rows[2][8:]] == result.scores["RP"].rates[1].tolist()


def test_the_confidence_is_that_of_every_interval(result):
    score = result.scores["RP"]
    for row in result.table("pairs"):
        pair = result.names.index(row["first"]), result.names.index(row["second"])
        score = result.scores[row["score"]]
        assert (row["low"], row["high"]) == score.interval(*pair, 0.9)
        assert row["high"] - row["low"] < score.interval(*pair)[1] - score.interval(*pair)[0]
    assert "90 % interval" in str(result)
    assert "95 %" not in str(result)
    test = result.paired_test("n", "threshold", "c")
    assert test.high - test.low == pytest.approx(
        next(row["high"] - row["low"] for row in result.table("paired") if row["system"] == "n")
    )


def test_tables_are_known_by_name(result):
    assert set(TABLES) == {"pairs", "conditional", "values", "curves", "paired", "gl"}
    with pytest.raises(UserError, match="unknown table 'pair'; did you mean 'pairs'"):
        result.table("pair")
