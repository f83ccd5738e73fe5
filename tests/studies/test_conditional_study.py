"""The study of conditional systems: run in miniature, its tables hold what the plain functions give."""

from __future__ import annotations

import pytest
import torch
from study_runs import Here, rows

from repro.banks import Bank
from repro.cli.main import main
from repro.descriptors.pixels import Pixels
from repro.metrics import functional
from repro.registry import load
from repro.studies import conditional
from repro.studies.systems import CONDITIONAL_SYSTEMS


def test_tables_figure_and_text(tmp_path, monkeypatch):
    systems = {name: CONDITIONAL_SYSTEMS[name] for name in ("EDM-cond", "UViT-cond")}
    monkeypatch.setattr(conditional, "_PLAIN", ("EDMv1",))
    monkeypatch.setattr(conditional, "CONDITIONAL_SYSTEMS", systems)
    monkeypatch.setattr("repro.comparison.write.figures", lambda comparison: ())
    executor = Here(2)
    told = load("studies", "conditional")(seeds="0-5").run(tmp_path, "tiny", executor, main)
    assert "EDM-cond - UViT-cond: " in told
    assert "n = 60, control" in told
    banks = {name: Bank.open(tmp_path / "banks" / name) for name in ("EDMv1", *systems)}
    features = {name: Pixels().features(bank.images) for name, bank in banks.items()}
    table = rows(tmp_path / "conditional.csv")
    assert len(table) == 11
    first, second = systems
    labels = torch.arange(10).repeat(6)
    right = functional.conditional_reproducibility_score(features[first], features[second], labels, 10, 0.95)
    assert [float(row["rate"]) for row in table] == pytest.approx([*right.per_class.tolist(), right.mean])
    between = {(row["first"], row["second"]): row for row in rows(tmp_path / "between.csv")}
    assert len(between) == 2
    row = between["EDMv1", first]
    under = features[first].unflatten(0, (6, 10))
    assert float(row["rate"]) == functional.between_reproducibility_score(features["EDMv1"], under, 0.95)
    assert int(row["same_class"]) <= int(row["count"])
    assert (tmp_path / "conditional.png").is_file()
    assert list((tmp_path / "results").glob("events*"))
    again = Here(2)
    load("studies", "conditional")(seeds="0-5").run(tmp_path, "tiny", again, main)
    assert again.ran == []


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_every_scale_has_a_plan(scale, tmp_path):
    jobs = load("studies", "conditional")().jobs(tmp_path, scale)
    assert len(jobs) == 12
    done = set()
    for job in jobs:
        assert done.issuperset(job.after)
        done.add(job.name)


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert main(["study", "conditional", "--scale", "tyny", "--output", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
