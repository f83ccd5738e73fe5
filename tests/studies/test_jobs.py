"""Jobs of studies: settings that can be read and run by hand, in a legal order, never under other settings."""

from __future__ import annotations

import dataclasses
from graphlib import CycleError

import pytest
import yaml
from commands import run_here
from study_runs import options

from repro import registry
from repro.banks import Bank
from repro.cli.main import main
from repro.errors import UserError
from repro.studies import SCALES, Plan, Size
from repro.studies.jobs import Job, check_settings, in_order, remaining

STUDIES = [(name, scale) for name in registry.names("studies") for scale in registry.load("studies", name).scales]


def test_a_job_is_its_settings_and_can_be_run_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan("mine", tmp_path / "study", SCALES["tiny"])
    run = plan.fit("a", "digits/mlp_edm", {"data.subset": 40, "trainer.max_steps": 1, "trainer.logger": False})
    plan.draw("a", run, "0-3", {"sampler": "Heun", "sampler.steps": 2})
    fit, draw = plan.jobs()
    assert fit.words(plan.folder) == ["fit", "--config", str(plan.folder / "jobs" / "fit_a.yaml")]
    assert yaml.safe_load((plan.folder / "jobs" / "fit_a.yaml").read_text()) == {
        "config": "digits/mlp_edm",
        "data": {"subset": 40},
        "trainer": {"max_steps": 1, "logger": False},
        "output": str(run.run),
    }
    assert main(fit.words(plan.folder)) == 0
    assert main(draw.words(plan.folder)) == 0
    drawn = yaml.safe_load((plan.folder / "jobs" / "draw_a.yaml").read_text())
    assert drawn["sampler"] == {"class_path": "Heun", "init_args": {"steps": 2}}
    assert Bank.open(plan.folder / "banks" / "a").manifest.seeds == [0, 1, 2, 3]


def test_an_interrupted_job_goes_on_from_its_checkpoint(tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    job = Job("fit", "fit", {"output": "x"}, checkpoint=checkpoint)
    assert "--ckpt_path" not in job.words(tmp_path)
    checkpoint.touch()
    assert job.words(tmp_path)[-2:] == ["--ckpt_path", str(checkpoint)]


def test_order_begins_with_the_longest_chain_and_refuses_a_circle():
    jobs = [
        Job("short", "fit", size=Size(5)),
        Job("last", "fit", after=("first",), size=Size(7)),
        Job("first", "fit", size=Size(1)),
    ]
    assert [job.name for job in in_order(jobs)] == ["first", "last", "short"]
    with pytest.raises(CycleError):
        in_order([Job("a", "fit", after=("b",)), Job("b", "fit", after=("a",))])


def test_a_folder_of_other_settings_is_refused_and_a_moved_or_old_one_goes_on(tmp_path):
    def jobs(folder, **settings):
        plan = Plan("mine", folder, SCALES["tiny"])
        plan.draw("a", plan.fit("a", "digits/mlp_edm", {"data.subset": 40, **settings}))
        return plan.jobs()

    for job in jobs(tmp_path / "old"):
        job.words(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    check_settings(jobs(tmp_path / "new"), tmp_path / "new")
    with pytest.raises(UserError, match=r"job fit_a was run in .*new with data.subset 40, now it is 41; name another"):
        check_settings(jobs(tmp_path / "new", **{"data.subset": 41}), tmp_path / "new")
    for file in (tmp_path / "new" / "jobs").glob("*.yaml"):
        file.unlink()
    (tmp_path / "new" / "jobs" / "fit_a.done").write_text("1.0 s\n")
    check_settings(jobs(tmp_path / "new", **{"data.subset": 41}), tmp_path / "new")
    assert [job.name for job in remaining(jobs(tmp_path / "new"), tmp_path / "new")] == ["draw_a"]


def test_measurements_wait_for_their_inputs_and_write_what_they_find(tmp_path):
    plan = Plan("mine", tmp_path, SCALES["tiny"], {"number": 3})
    runs = {name: plan.fit(name, "digits/mlp_edm") for name in "ab"}
    first = plan.measure("first", lambda handles, factor: len(handles) * factor, runs, 5)
    plan.measure("second", lambda other: other.read() + 1, first)
    jobs = {job.name: job for job in plan.jobs()}
    assert jobs["measure_first"].after == ("fit_a", "fit_b")
    assert jobs["measure_second"].after == ("measure_first",)
    assert options(jobs["measure_second"]) == {
        "study": "mine", "scale": "tiny", "part": "second", "number": 3, "output": str(tmp_path),
    }  # fmt: skip
    for name, found in (("first", 10), ("second", 11)):
        assert plan.measure_now(name).read_text() == f"{found}\n"


def test_two_different_jobs_of_one_name_are_a_mistake(tmp_path):
    plan = Plan("mine", tmp_path, SCALES["tiny"])
    assert plan.fit("a", "digits/mlp_edm") == plan.fit("a", "digits/mlp_edm")
    with pytest.raises(ValueError, match="fit_a"):
        plan.fit("a", "digits/mlp_edm", {"data.subset": 3})


@pytest.mark.parametrize(("name", "scale"), STUDIES)
def test_jobs_of_a_study_have_a_legal_order(name, scale, tmp_path):
    seen = set()
    for job in registry.load("studies", name)().jobs(tmp_path, scale):
        assert job.name not in seen
        assert seen.issuperset(job.after), job.name
        assert job.settings["output"].startswith(str(tmp_path))
        seen.add(job.name)


def test_settings_of_an_overlay_win_in_every_training_and_nowhere_else(tmp_path):
    study = registry.build("studies", "regimes")
    plain, over = (study.planned(tmp_path, "tiny", each)[0].jobs() for each in ({}, {"trainer": {"max_steps": 7}}))
    for before, after in zip(plain, over, strict=True):
        if before.command == "fit":
            assert options(after) == options(before) | {"trainer.max_steps": 7}
        else:
            assert dataclasses.replace(after, after=before.after) == before


@pytest.mark.parametrize("name", registry.names("studies"))
def test_a_dry_run_prints_the_plan_and_writes_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", name, "--dry-run"]) == 0
    assert "jobs are left: about" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quickstrt"], "unknown study 'quickstrt'; did you mean 'quickstart'"),
        (["quickstart", "--workers", "0"], "workers is 0; give at least 1"),
        (["quickstart", "--scale", "huge"], "unknown scale 'huge'"),
        (["quickstart", "--overlay", "small/digits"], "--overlay small/digits has the key by_class"),
        (["quickstart", "--overlay", "small/digit"], "unknown config 'small/digit'; did you mean 'small/digits'"),
        (["manifold", "--part", "cornrs"], "unknown part of manifold 'cornrs'; did you mean 'corners'"),
        (["--config", "digits/mlp_edm"], "config file digits/mlp_edm names no study"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in run_here("study", *words).mistake
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", registry.names("studies"))
def test_images_of_a_user_replace_the_data_of_a_scale_in_every_training_or_are_refused(name, tmp_path):
    study, scale = registry.load("studies", name)(), SCALES["tiny"].on(str(tmp_path))
    if not study.on_images:
        with pytest.raises(UserError, match=f"study {name} always learns data of its own; leave --images out"):
            study.jobs(tmp_path / "study", scale)
        return
    own = {job.name: options(job) for job in study.jobs(tmp_path / "study", "tiny") if job.command == "fit"}
    jobs = [job for job in study.jobs(tmp_path / "study", scale) if job.command != "predict"]
    for job in jobs:
        settings = options(job)
        if job.command == "study":
            assert settings["images"] == str(tmp_path)
        elif "data" not in own[job.name]:
            assert settings == own[job.name] | {"data": "ImageArchive", "data.path": str(tmp_path)}
    assert any("data.path" in options(job) for job in jobs)
