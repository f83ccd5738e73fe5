"""Tables equal the plain functions, row by row."""

import csv

import numpy as np
import pytest
import torch
from conditional_banks import CLASSES, LABELS, NOISES, SHAPE, conditional
from noisy_images import systems

from repro.banks import Bank
from repro.comparison import compare, derangement
from repro.errors import UserError
from repro.metrics import functional
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.paired import adjusted_p_values


def test_two_conditional_banks_equal_the_plain_functions(drawn):
    (a, b, _), _ = drawn
    found = compare([conditional(a), conditional(b)], "Pixels", names=["a", "b"], control_seed=3)
    per_class, mean = functional.conditional_reproducibility_score(a, b, LABELS, CLASSES, 0.8)
    shuffle = derangement(NOISES, 3)
    other = b.unflatten(0, (NOISES, CLASSES))[shuffle].flatten(0, 1)
    control, _ = functional.conditional_reproducibility_score(a, other, LABELS, CLASSES, 0.8)
    rows = {row["class"]: row for row in found.table("conditional") if row["score"] == "RP"}
    assert [rows[label]["rate"] for label in range(CLASSES)] == per_class.tolist()
    assert [rows[label]["control_rate"] for label in range(CLASSES)] == control.tolist()
    assert per_class[0] > per_class[1] > per_class[2] > 0
    for label in range(CLASSES):
        assert (rows[label]["low"], rows[label]["high"]) == wilson_interval(rows[label]["count"], NOISES)
    assert rows["mean"]["rate"] == pytest.approx(mean)
    assert found.scores["RP"].rates[0, 1] == functional.reproducibility_score(a, b, 0.8)
    assert found.scores["RP"].control_rates[0, 1] == functional.reproducibility_score(a, other, 0.8)
    mae = [row for row in found.table("conditional") if row["score"] == "MAE"]
    for label, row in enumerate(mae[:CLASSES]):
        own = LABELS.eq(label)
        assert row["rate"] == functional.mae_score(a[own], b[own])
    assert "Between RP" not in found.scores
    assert f"n = {NOISES * CLASSES}: {NOISES} noises x {CLASSES} classes" in str(found)


def test_both_kinds_together(drawn, tmp_path):
    (a, b, _), (u, v) = drawn
    banks = [Bank.from_images(u), conditional(a), Bank.from_images(v), conditional(b)]
    found = compare(banks, "Pixels", names=["u", "a", "v", "b"], metrics=["FrechetDistance"])
    assert found.scores["RP"].pairs() == [(0, 2), (1, 3)]
    assert found.scores["RP"].totals[0, 2] == NOISES
    assert found.scores["RP"].totals[1, 3] == NOISES * CLASSES
    assert found.scores["RP"].rates[0, 2] == functional.reproducibility_score(u, v, 0.8)
    assert found.scores["RP"].rates[1, 3] == functional.reproducibility_score(a, b, 0.8)
    assert np.isnan(found.scores["RP"].rates[0, 1])
    assert found.scores["Between RP"].pairs() == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert np.isfinite(found.values["FrechetDistance[Pixels]"].values[np.triu_indices(4, 1)]).all()
    written = {path.name for path in found.write(tmp_path)}
    assert {"rp.csv", "between_rp.csv", "conditional.csv", "paired.csv", "values.csv", "curves.csv"} <= written
    with open(tmp_path / "rp.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][name] for name in ("a", "b")] == ["", ""]
    with open(tmp_path / "conditional.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["0", "1", "2", "mean"] * 2
    assert {row["first"] + row["second"] for row in rows} == {"ab"}


def test_a_class_without_images_and_classes_of_different_size():
    images = torch.randint(0, 256, (8, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.tensor([0, 0, 0, 2, 2, 0, 2, 0])
    banks = [conditional(each, labels, range(8), 4) for each in (images, images)]
    rows = [row for row in compare(banks, "Pixels").table("conditional") if row["score"] == "RP"]
    assert [row["class"] for row in rows] == [0, 2, "mean"]
    assert [row["n"] for row in rows] == [5, 3, 8]
    assert rows[-1]["low"] is None


def test_a_class_with_one_image_has_no_control():
    images = torch.randint(0, 256, (4, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    banks = [conditional(images, torch.tensor([0, 1, 1, 1]), range(4), 2) for _ in range(2)]
    found = compare(banks, "Pixels")
    assert found.scores["RP"].control is None
    assert "control_rate" not in found.table("conditional")[0]


N = 50


@pytest.fixture(scope="module")
def images():
    return systems(3, N)


def test_paired_tests_equal_the_plain_function(images, tmp_path):
    found = compare([Bank.from_images(each) for each in images], "Pixels", names=list("abc"))
    a, b, c = images
    test = found.paired_test("a", "b", "c")
    assert test == functional.paired_reproducibility_test(a, b, c, 0.8)
    assert test.p_value < 0.05
    assert found.paired_test("b", "c", "a").difference < 0
    rows = found.table("paired")
    assert [(row["system"], row["first"], row["second"]) for row in rows[:3]] == [
        ("a", "b", "c"), ("b", "a", "c"), ("c", "a", "b"),
    ]  # fmt: skip
    assert [row["score"] for row in rows] == ["RP"] * 3 + ["MAE"] * 3
    for row in rows:
        test = found.paired_test(row["system"], row["first"], row["second"], row["score"])
        assert (row["p_value"], row["difference"], row["only_first"]) == (
            test.p_value, test.difference, test.only_first,
        )  # fmt: skip
        assert row["p_value"] <= row["p_adjusted"] <= 3 * row["p_value"]
        assert (row["rate_first"], row["rate_second"]) == (test.first, test.second)
    found.write(tmp_path, figures=False)
    with open(tmp_path / "paired.csv", newline="") as file:
        assert [float(row["p_adjusted"]) for row in csv.DictReader(file)] == [row["p_adjusted"] for row in rows]
    with pytest.raises(UserError, match="unknown system 'd'"):
        found.paired_test("a", "b", "d")
    with pytest.raises(UserError, match="unknown score"):
        found.paired_test("a", "b", "c", "PR")


def test_curves_equal_the_scores(images):
    found = compare([Bank.from_images(each) for each in images], "Pixels", images[0][:20], names=list("abc"))
    rows = found.table("curves")
    checked = 0
    for row in rows[::7]:
        if row["score"] == "GL":
            x = images["abc".index(row["first"])]
            expected = functional.generalization_score(x, images[0][:20], row["threshold"])
        else:
            x, y = (images["abc".index(row[place])] for place in ("first", "second"))
            plain = functional.reproducibility_score if row["score"] == "RP" else functional.mae_score
            expected = plain(x, y, row["threshold"])
        assert row["rate"] == expected, row
        checked += 1
    assert checked > 40
    for score in ("RP", "MAE"):
        limit = found.scores[score].threshold
        at = [row for row in rows if row["score"] == score and row["threshold"] == limit]
        assert [row["count"] for row in at] == [found.scores[score].counts[pair] for pair in ((0, 1), (0, 2), (1, 2))]
        assert [row["control_count"] for row in at] == [
            found.scores[score].control[pair] for pair in ((0, 1), (0, 2), (1, 2))
        ]
    at = [row["count"] for row in rows if row["score"] == "GL" and row["threshold"] == 0.8]
    assert at == [memorization.count for memorization in found.memorization]


def test_paired_tests_of_many_systems_are_made_on_request():
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 256, (30, 1, 4, 4), generator=generator).float()
    noisy = [base + k * 5 * torch.randn(base.shape, generator=generator) for k in range(14)]
    banks = [Bank.from_images(each.clamp(0, 255).to(torch.uint8)) for each in noisy]
    names = [f"system {k}" for k in range(14)]
    assert compare(banks, "Pixels", names=names).table("paired") == []
    few = compare(banks[:12], "Pixels", names=names[:12]).table("paired")
    assert len(few) == 2 * 12 * 11 * 10 / 2
    asked = compare(banks, "Pixels", names=names, paired=["system 3", "system 3"])
    rows = [row for row in asked.table("paired") if row["score"] == "RP"]
    assert len(rows) == 13 * 12 / 2
    for row in rows[::7]:
        test = asked.paired_test("system 3", row["first"], row["second"])
        assert (row["system"], row["p_value"], row["only_first"]) == ("system 3", test.p_value, test.only_first)
    assert [row["p_adjusted"] for row in rows] == adjusted_p_values([row["p_value"] for row in rows])
    with pytest.raises(UserError, match="unknown system 'system 33'; did you mean 'system 3'"):
        compare(banks, "Pixels", names=names, paired=["system 33"])
