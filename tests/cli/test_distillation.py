"""Students from the command line: what they take from their teacher, resume, validation, and a user's mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from commands import run_here

DATA = ("--data", "Digits", "--data.batch_size", "8", "--data.subset", "40")
TRAINER = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
FIT = ("fit", "--model", "ConsistencyDistillation", *DATA, *TRAINER, "--trainer.max_steps", "2", "--model.levels", "4")
FROM = (*FIT, "--model.teacher", "runs/tiny")
NETWORK = ("--model.network", "MLP", "--model.network.width", "8")


def test_a_student_is_trained_resumed_validated_and_drawn_without_its_teacher(trained: Path) -> None:
    done = run_here(*FROM, "--data.holdout", "8", "--name", "student")
    assert done.code == 0, done
    assert "5,088 parameters" in done.out
    assert yaml.safe_load(Path("runs/student/config.yaml").read_text())["model"]["init_args"]["network"] is None
    assert run_here("fit", "--ckpt_path", "runs/student", "--trainer.max_steps", "4").code == 0
    validated = run_here("validate", "--ckpt_path", "runs/student", *TRAINER)
    assert validated.code == 0
    assert "val/loss" in validated.out
    shutil.move("runs/tiny", "away")
    try:
        assert run_here("predict", "--ckpt_path", "runs/student", "--seeds", "0-3", *TRAINER).code == 0
        told = run_here("validate", "--ckpt_path", "runs/student", *TRAINER).mistake
        assert "teacher: no checkpoint at runs/tiny" in told
        told = run_here("fit", "--ckpt_path", "runs/student", "--trainer.max_steps", "6").mistake
        assert "teacher: no checkpoint at runs/tiny" in told
    finally:
        shutil.move("away", "runs/tiny")


def test_the_run_is_named_after_the_model(trained: Path) -> None:
    assert "in runs/ConsistencyDistillation-Digits" in run_here(*FROM).out


def test_the_task_is_the_teachers(conditional: Path) -> None:
    done = run_here(*FIT, "--model.teacher", "runs/classes", "--name", "of_classes")
    assert done.code == 0, done
    assert yaml.safe_load(Path("runs/of_classes/config.yaml").read_text())["task"] == "conditional"


def test_training_without_a_teacher(trained: Path) -> None:
    words = ("fit", "--model", "ConsistencyTraining", *NETWORK, *DATA, *TRAINER, "--trainer.max_steps", "3")
    done = run_here(*words, "--model.schedule_steps", "3", "--model.last_levels", "8", "--name", "ct")
    assert done.code == 0, done
    assert run_here("predict", "--ckpt_path", "runs/ct", "--seeds", "0-3", *TRAINER).code == 0


def test_settings_can_be_fed_back(trained: Path) -> None:
    first = run_here(*FROM, "--print_config")
    assert first.code == 0, first
    Path("printed.yaml").write_text(first.out)
    assert run_here("fit", "--config", "printed.yaml", "--print_config").out == first.out


MISTAKES = [
    (FIT, ["model (ConsistencyDistillation) needs teacher; give --model.teacher"]),
    ((*FIT, "--model.teacher", "runs/tinny"), ["no checkpoint at runs/tinny"]),
    ((*FIT, "--model.teacher", "GausianDenoiser"), ["did you mean the denoiser GaussianDenoiser?"]),
    ((*FIT, "--model.teacher", "runs/tinny", *NETWORK, "--model.kernel", "EDM"), ["no checkpoint at runs/tinny"]),
    ((*FIT, "--model.teacher", "GaussianDenoiser", "--model.teacher.kernel", "EDM"), ["no network", "--model.network"]),
    (
        (*FROM, "--data.resize", "16", "--name", "large"),
        ["the teacher is for images 1x8x8, Digits has 1x16x16", "--model.teacher PATH"],
    ),
    ((*FROM, *NETWORK, "--data.resize", "16"), ["the teacher has images 1x8x8, the student 1x16x16"]),
    ((*FROM, "--model.kernel", "VP"), ["kernel VP has noise levels from 0.0105 to 152", "EDM from 0.002 to 80"]),
    ((*FROM, "--task", "conditional"), ["model.teacher has 0 classes, but --task conditional on Digits has 10"]),
    ((*FIT, "--model.teacher", "runs/classes", "--task", "unconditional"), ["has 10 classes", "unconditional"]),
    ((*FROM, "--model.sampler", "Heun"), ["sampler is Heun", "take Consistency"]),
    ((*FROM, "--model.solver", "huen"), ["model.solver is 'huen'; give one of 'heun', 'euler'"]),
    ((*FROM, "--model.levls", "4"), ["did you mean 'levels'"]),
    ((*FROM, "--model.target_decay", "1"), ["target_decay is 1", "below 1"]),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[-60:])
def test_mistakes_are_one_line_and_leave_nothing(conditional: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(conditional.rglob("*"))
    mistake = run_here(*words).mistake
    assert all(part in mistake for part in told), mistake
    assert sorted(conditional.rglob("*")) == before
