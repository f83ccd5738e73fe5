"""The study inpaint: its jobs, what it counts on banks whose agreement is known, and mistakes."""

from __future__ import annotations

import math

import pytest
import torch
from study_runs import options, rows

from repro.banks import Bank, BankWriter
from repro.cli.main import main
from repro.data.digits import Digits
from repro.errors import UserError
from repro.records import record_of
from repro.studies.inpaint import Inpaint

SYSTEMS = ("DDPMv1", "DDPMv3", "Multistagev1", "DiT", "UViT")
PROBLEMS = ("free", "easy_fixed", "hard_fixed", "easy_distinct", "hard_distinct")
NOISES, ALIKE = 60, 40


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report on banks in which the systems of a class agree on every noise, and the two classes on 40 of 60.

    The U-Nets keep what the easy mask shows of the image of each noise; nothing is like the truth.
    """
    folder, data = tmp_path_factory.mktemp("study"), Digits(subset=NOISES)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, NOISES, 1, 8, 8), generator=generator, dtype=torch.uint8)
    unet = data.images().clone()
    unet[:, :, 2:6, 2:6] = noise[0, :, :, 2:6, 2:6]
    transformer = unet.clone()
    transformer[ALIKE:] = noise[1, ALIKE:]
    for problem in PROBLEMS:
        for system in SYSTEMS:
            manifest = {"seeds": range(NOISES), "image_shape": (1, 8, 8), "data": record_of(data)}
            writer = BankWriter(folder / "banks" / f"{problem}_{system}", manifest)
            writer.write(range(NOISES), transformer if system in ("DiT", "UViT") else unet)
    return folder, Inpaint().reported(folder, "tiny"), data.images(), transformer


def test_every_system_is_trained_once_and_drawn_for_every_problem(tmp_path):
    jobs = {job.name: job for job in Inpaint(observation=5).jobs(tmp_path, "tiny")}
    assert len(jobs) == 5 + 25
    for system in SYSTEMS:
        for problem in PROBLEMS:
            job = jobs[f"draw_{problem}_{system}"]
            assert job.after == (f"fit_{system}",)
            assert options(job)["sampler.steps"] == 100
            assert ("task" in options(job)) == (problem != "free")
            assert ("problem.observation" in options(job)) == problem.endswith("fixed")
    hard = options(jobs["draw_hard_fixed_UViT"])
    assert hard["problem.operator.side"] == 25 / 32
    assert hard["problem.observation"] == 5
    assert options(jobs["draw_easy_distinct_DiT"])["problem.operator.side"] == 0.5
    assert next(iter(jobs)) == "fit_UViT"


def test_the_papers_scale_has_its_seven_systems(tmp_path):
    jobs = {job.name: options(job) for job in Inpaint().jobs(tmp_path, "paper")}
    assert len(jobs) == 7 + 35
    assert jobs["draw_hard_distinct_DDPMv4"]["seeds"] == "0-9999"
    assert jobs["fit_DiT"]["config"] == ["dit_cifar"]


def test_trained_systems_of_another_study_serve(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for system in SYSTEMS:
        folder = tmp_path / "other" / "runs" / system / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
    assert main(["study", "inpaint", "--trained", "other", "--seeds", "0-9", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "25 of 25 jobs are left" in told
    assert "ckpt_path other/runs/DiT" in told
    (tmp_path / "other" / "runs" / "DiT" / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match="no run of DiT in other/runs"):
        Inpaint("other").jobs(tmp_path, "tiny")


def test_rates_within_and_between_classes(reported):
    folder, told, _, _ = reported
    table = {(row["problem"], row["class"]): row for row in rows(folder / "classes.csv")}
    assert len(table) == len(PROBLEMS) * 3
    between = ALIKE / NOISES
    error = math.sqrt(between * (1 - between) / NOISES)
    for (_, kind), row in table.items():
        assert float(row["rp"]) == (pytest.approx(between) if kind == "between" else 1.0)
        assert int(row["n"]) == NOISES * {"U-Net": 3, "transformer": 1, "between": 6}[kind]
        assert float(row["low"]) <= float(row["rp"]) <= float(row["high"])
        assert float(row["control"]) < 0.1
        assert float(row["within_minus_between"]) == pytest.approx(1 - between)
        assert float(row["standard_error"]) == pytest.approx(error)
    assert "between (6 pairs): RP 0.667" in told
    assert "within minus between: +0.333" in told
    pairs = rows(folder / "pairs.csv")
    assert len(pairs) == len(PROBLEMS) * 10
    assert {row["class"] for row in pairs if row["first"] == "DiT"} == {"transformer"}


def test_restored_images_against_truth_and_measurement(reported):
    folder, _, truth, drawn = reported
    table = {(row["problem"], row["system"]): row for row in rows(folder / "restored.csv")}
    assert len(table) == 4 * 5
    assert float(table["easy_distinct", "DDPMv1"]["residual"]) == 0
    error = (drawn.double() - truth.double()).square()
    psnr = 10 * (255**2 / error.mean((1, 2, 3))).log10().mean()
    for problem, side in (("easy_distinct", 4), ("hard_distinct", 6)):
        row, margin = table[problem, "UViT"], (8 - side) // 2
        assert float(row["psnr"]) == pytest.approx(psnr.item(), rel=1e-5)
        seen = error.clone()
        seen[:, :, margin : 8 - margin, margin : 8 - margin] = 0
        assert float(row["residual"]) == pytest.approx(seen.mean().sqrt().item() / 127.5, rel=1e-6)
    fixed = (drawn.double() - truth[:1].double()).square()
    psnr = 10 * (255**2 / fixed.mean((1, 2, 3))).log10().mean()
    assert float(table["easy_fixed", "UViT"]["psnr"]) == pytest.approx(psnr.item(), rel=1e-5)


def test_figure_tables_and_log_are_there(reported):
    folder, told, _, _ = reported
    assert (folder / "inpaint.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "inpaint.png") in told
    assert list((folder / "results").glob("events*"))
    assert (folder / "results" / "hard_distinct" / "comparison.json").is_file()


def test_a_job_of_the_study_does_what_it_says(tmp_path):
    jobs = {job.name: job.words(tmp_path) for job in Inpaint(seeds="0-2").jobs(tmp_path, "tiny")}
    quiet = ("--trainer.enable_progress_bar", "false")
    assert main([*jobs["fit_DiT"], *quiet, "--trainer.max_steps", "1", "--trainer.logger", "false"]) == 0
    assert main([*jobs["draw_hard_distinct_DiT"], *quiet]) == 0
    manifest = Bank.open(tmp_path / "banks" / "hard_distinct_DiT").manifest
    assert manifest.task == "inpaint"
    assert manifest.extra["operator"]["args"] == {"side": 25 / 32}
    assert manifest.sampler["args"]["sampler"]["args"]["steps"] == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trained", "nowhere"), "no run of DDPMv1 in nowhere/runs"),
        (("--observation", "-1"), "observation is -1"),
        (("--seeds", "9-1"), "9-1"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "inpaint", *words, "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
