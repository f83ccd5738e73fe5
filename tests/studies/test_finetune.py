"""The study finetune: who is trained on what, and what is reported."""

from __future__ import annotations

import csv
import itertools

import pytest
import torch
from PIL import Image
from study_runs import options

from repro.banks import BankWriter
from repro.cli.main import main
from repro.data.digits import Digits
from repro.records import record_of
from repro.registry import load


def study():
    return load("studies", "finetune")()


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_both_modes_see_the_same_images_for_as_many_steps_and_only_one_has_a_start(tmp_path, scale):
    jobs = {job.name: job for job in study().jobs(tmp_path, scale)}
    counts = sorted({int(name.rpartition("_n")[2]) for name in jobs if "_n" in name})
    assert len(counts) >= 4
    assert len(jobs) == 2 * (1 + 4 * len(counts))
    for count, seed in itertools.product(counts, (0, 1)):
        tuned, scratch = (jobs[f"fit_{mode}{seed}_n{count}"] for mode in ("tuned", "scratch"))
        assert (tuned.after, scratch.after) == (("fit_start",), ())
        one, other = options(tuned), options(scratch)
        assert {key for key in one | other if one.get(key) != other.get(key)} == {"config", "model.start", "output"}
        assert one["data.subset"] == count
    assert [options(jobs[f"fit_scratch{seed}_n{counts[0]}"])["data.seed"] for seed in (0, 1)] == [1, 2]


def test_settings_resolve_at_the_small_scale(tmp_path, capsys):
    jobs = {job.name: job for job in study().jobs(tmp_path, "small")}
    with pytest.raises(SystemExit, match="0"):
        main([*jobs["fit_start"].words(tmp_path), "--print_config"])
    printed = capsys.readouterr().out
    assert all(part in printed for part in ("class_path: CIFAR100", "resize: 16", "width: 64", "batch_size: 256"))


def test_the_report_counts_and_draws(tmp_path, monkeypatch):
    """From scratch the N images come out; fine-tuned twice the same other images; nothing agrees between the modes."""
    module = __import__("repro.studies.finetune", fromlist=["_SIZES"])
    monkeypatch.setitem(module._SIZES, "tiny", module._SIZES["tiny"]._replace(counts=(20, 40)))
    low, high = Digits(classes=[0, 1, 2, 3, 4]), [5, 6, 7, 8, 9]
    noise = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def write(name, images, data):
        writer = BankWriter(
            tmp_path / "banks" / name, {"seeds": [*range(20)], "image_shape": (1, 8, 8), "data": record_of(data)}
        )
        writer.write(range(20), images)

    write("start", low.images()[:20], low)
    for count in (20, 40):
        data = Digits(classes=high, subset=count)
        for seed in (0, 1):
            write(f"scratch{seed}_n{count}", data.images()[:20], data)
            write(f"tuned{seed}_n{count}", noise, data)
    text = study().reported(tmp_path, "tiny")
    with open(tmp_path / "finetune.csv") as file:
        rows = {(int(row["N"]), row["score"], row["of"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * (5 + 4 + 3)
    for count in (20, 40):
        assert float(rows[count, "RP", "fine-tuned twice"]["rate"]) == 1.0
        assert float(rows[count, "RP", "fine-tuned and from scratch"]["rate"]) == 0.0
        assert float(rows[count, "GL", "from scratch, seed 1"]["rate"]) == 0.0
        assert float(rows[count, "GL", "fine-tuned, seed 2"]["rate"]) == 1.0
        assert float(rows[count, "share of the second set", "from scratch"]["rate"]) == 1.0
        assert float(rows[count, "share of the second set", "start"]["rate"]) == 0.0
        assert rows[count, "RP", "fine-tuned twice"]["n"] == "20"
    assert "RP, fine-tuned twice: 1.000 (0.839-1.000), control 0.000" in text
    assert min(Image.open(tmp_path / "finetune.png").size) > 300
    assert list((tmp_path / "results").glob("events.out.tfevents*"))
