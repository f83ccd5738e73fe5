"""The study similarity: what it compares, its jobs, its tables, and mistakes."""

import csv
import json

import numpy as np
import pytest
import torch
from study_runs import options

from repro import records, registry
from repro.banks import Bank, BankWriter
from repro.cli.main import main
from repro.errors import UserError
from repro.studies import SCALES, Drawn, Trained
from repro.studies.similarity import Similarity
from repro.studies.system_table import facts_of
from repro.studies.systems import SYSTEMS


def pixels(count, seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def write_bank(folder, images, **manifest):
    writer = BankWriter(folder, {"seeds": range(len(images)), "image_shape": tuple(images.shape[1:]), **manifest})
    for seeds in writer.missing():
        writer.write(seeds, images[seeds])


@pytest.fixture
def inputs(tmp_path):
    """A bank of 20 noises, released images that agree on 15 of them, and a bank of 18 that agrees on none."""
    images = pixels(20, 0)
    write_bank(tmp_path / "ours", images)
    theirs = images.clone()
    theirs[15:] = pixels(5, 1)
    (tmp_path / "theirs").mkdir()
    np.savez(tmp_path / "theirs" / "samples.npz", samples=theirs.permute(0, 2, 3, 1).numpy())
    write_bank(tmp_path / "others", pixels(18, 2))
    return [str(tmp_path / name) for name in ("ours", "theirs", "others")]


def test_all_twenty_are_trained_once_each_after_its_teacher(tmp_path):
    jobs = {job.name: job for job in Similarity().jobs(tmp_path, "tiny")}
    assert len(jobs) == 19 + 20
    assert set(jobs) == {f"fit_{name}" for name in SYSTEMS if name != "DDPMv5"} | {f"draw_{name}" for name in SYSTEMS}
    assert jobs["draw_DDPMv5"].after == ("fit_DDPMv4",)
    assert jobs["fit_CD"].after == ("fit_EDMv2",)
    assert jobs["fit_Progressivev1"].after == ("fit_Progressivev2",)
    assert jobs["fit_Progressivev3"].after == ("fit_DDPMv3",)
    assert sum(job.size.seconds for job in jobs.values()) < 2 * 3600


def test_the_longest_chain_begins_first(tmp_path):
    jobs = Similarity().jobs(tmp_path, "tiny")

    def remains(job):
        return job.size.seconds + max((remains(other) for other in jobs if job.name in other.after), default=0)

    times = [remains(job) for job in jobs]
    assert times == sorted(times, reverse=True)


def test_each_training_has_its_own_seeds(tmp_path):
    fits = [options(job) for job in Similarity().jobs(tmp_path, "tiny") if job.name.startswith("fit_")]
    for option in ("seed_everything", "model.seed", "data.seed"):
        assert len({settings[option] for settings in fits}) == len(fits)


@pytest.mark.parametrize(
    ("scale", "overlays"),
    [("tiny", ["small/digits"]), ("cpu", ["small/cifar16"]), ("small", ["small/cifar"]), ("paper", [])],
)
def test_scales_differ_by_their_overlay(tmp_path, scale, overlays):
    jobs = {job.name: options(job) for job in Similarity(["ddpmv3", "EDMv1"]).jobs(tmp_path, scale)}
    assert jobs["fit_DDPMv3"]["config"] == ["ddpmv3_cifar", *overlays]
    assert ("model.parameterization" in jobs["fit_DDPMv3"]) == (scale in ("tiny", "cpu"))


def test_given_images_are_what_systems_and_their_teachers_are_trained_on(tmp_path):
    jobs = Similarity(["EDMv1", "CD"]).jobs(tmp_path / "study", SCALES["cpu"].on(str(tmp_path)))
    fits = {job.name: options(job) for job in jobs if job.name.startswith("fit_")}
    assert set(fits) == {"fit_EDMv1", "fit_CD", "fit_EDMv2"}
    assert {(fit["data"], fit["data.path"]) for fit in fits.values()} == {("ImageArchive", str(tmp_path))}
    with pytest.raises(UserError, match="nothing is at"):
        SCALES["cpu"].on(str(tmp_path / "elsewhere"))


def test_a_scale_that_a_study_lacks_is_refused(tmp_path, capsys):
    words = ["study", "quickstart", "--scale", "cpu", "--output", str(tmp_path / "study")]
    assert main(words) == 2
    assert "study quickstart has no scale cpu; give --scale tiny" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_at_the_other_scales_students_learn_from_the_published_teacher(tmp_path):
    jobs = {job.name: job for job in Similarity(["Progressivev1", "CD"]).jobs(tmp_path, "paper")}
    assert jobs["fit_Progressivev1"].after == ("fit_DDPMv3",)
    assert "fit_Progressivev2" not in jobs
    assert "draw_DDPMv3" not in jobs


def test_given_banks_and_images_are_compared_on_the_noises_in_common(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Similarity(inputs).jobs(tmp_path, "tiny") == []
    assert main(["study", "similarity", *inputs, "--threshold", "0.9", "--output", "study"]) == 0
    rows = list(csv.DictReader((tmp_path / "study" / "results" / "systems.csv").open()))
    assert [row["system"] for row in rows] == ["ours", "theirs", "others"]
    assert [row["n"] for row in rows] == ["18"] * 3
    assert float(rows[0]["rp_highest"]) == 15 / 18
    assert rows[0]["rp_highest_with"] == "theirs"
    assert float(rows[0]["rp_lowest"]) == 0.0
    assert float(rows[0]["rp_mean"]) == 15 / 36
    assert float(rows[0]["rp_highest_from"]) < 15 / 18 < float(rows[0]["rp_highest_to"])
    assert rows[0]["images_seen"] == ""
    assert json.loads((tmp_path / "study" / "results" / "comparison.json").read_text())["threshold"] == 0.9
    assert (tmp_path / "study" / "similarity.png").read_bytes().startswith(b"\x89PNG")
    assert "0.833" in capsys.readouterr().out


def test_seeds_of_given_banks_are_those_that_models_draw(inputs, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    for given in (checkpoint, tmp_path / "run"):
        (job,) = Similarity([inputs[0], str(given)]).jobs(tmp_path, "tiny")
        assert job.name == "draw_run"
        assert (job.settings["seeds"], job.settings["ckpt_path"]) == ("0-19", str(given))


def test_inputs_of_one_name_are_told_apart(tmp_path):
    for parent in "ab":
        write_bank(tmp_path / parent / "bank", pixels(3, 0))
    study = Similarity([str(tmp_path / parent / "bank") for parent in "ab"])
    assert list(study.inputs) == ["bank-1", "bank-2"]


def test_facts_of_a_run(tmp_path):
    (tmp_path / "run.json").write_text('{"images_seen": 1280, "model": "Diffusion"}')
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "fit.done").write_text("12.5 s\n")
    network = registry.build("networks", "MLP", image_size=8, channels=1, num_classes=0, width=16, depth=1)
    model = registry.build(
        "modules", "Diffusion",
        network=network,
        kernel=registry.build("kernels", "VP"),
        parameterization=registry.build("parameterizations", "V"),
        sampler=registry.build("samplers", "Heun", steps=7),
    ).model  # fmt: skip
    bank = Bank.from_images(pixels(2, 0), model=records.record_of(model), sampler=records.record_of(model.sampler))
    facts = facts_of(bank, Trained("a", tmp_path, "fit"), Drawn("a", tmp_path, "draw"), tmp_path)
    assert (facts.mode, facts.network, facts.kernel, facts.sampler) == ("Diffusion", "MLP", "VP", "Heun 7")
    assert facts.parameters == sum(weight.numel() for weight in network.parameters())
    assert (facts.images_seen, facts.train_seconds, facts.draw_seconds) == (1280, 12.5, None)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["DDPMv3"], "1 input given; name at least two"),
        (["DDPMv3", "DDPMv9"], r"nothing is at DDPMv9, and it is no system; did you mean DDPMv\d\?"),
        (["DDPMv3", "runs/nothing"], "nothing is at runs/nothing, and it is no system"),
    ],
)
def test_mistakes_are_one_line(inputs, message):
    with pytest.raises(UserError, match=message) as caught:
        Similarity(inputs)
    assert "\n" not in str(caught.value)


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "similarity", "ddpmv3", "uvit", "--dry-run"]) == 0
    assert "4 of 4 jobs are left" in capsys.readouterr().out
    assert main(["study", "similarity", "ddpmv3", "uvitt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_study_that_takes_no_inputs_says_so(capsys):
    assert main(["study", "quickstart", "ddpmv3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
