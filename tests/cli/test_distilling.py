"""Progressive distillation from the command line: a student that stands alone, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import CONFIG, run_here

from repro.banks import Bank

STUDENT = """
model:
  class_path: ProgressiveDistillation
  init_args: {teacher: runs/tiny, start_steps: 4, end_steps: 1, stage_images: 24}
data: {class_path: Digits, init_args: {batch_size: 8, subset: 64}}
trainer: {max_steps: 9, accelerator: cpu, enable_progress_bar: false}
"""
FIT = ("fit", "--config", "student.yaml")
MISTAKES = [
    (("--model.end_steps", "3"), ["model: end_steps 3 is not reached by halving start_steps 4", "4, 2, 1"]),
    (("--model.end_steps", "8"), ["model: end_steps 8 is not reached by halving start_steps 4"]),
    (("--data.resize", "16"), ["teacher", "8x8", "16x16"]),
    (("--trainer.max_steps", "8"), ["3 stages of stage_images 24 need 72 images", "--trainer.max_steps 9"]),
    (("--model.stage_images", "4"), ["stage_images is 4, less than one step's 8"]),
    (("--model.stage_images", "0"), ["model: stage_images is 0"]),
    (("--model.weighting", "snr"), ["model.weighting is 'snr'", "'truncated_snr', 'snr_plus_one'"]),
    (("--model.t_end", "2"), ["model: t_end is 2; times of VP lie between 0 and 1"]),
    (("--model.teacher", "runs/tny"), ["no checkpoint at runs/tny"]),
    (("--model.sampler", "Euler"), ["ProgressiveDistillation has no argument 'sampler'"]),
]


@pytest.fixture(scope="module")
def taught(workplace: Path) -> Path:
    """The workplace with a teacher, runs/tiny, and the config student.yaml."""
    (workplace / "tiny.yaml").write_text(CONFIG.replace("EDM\n", "VP\n", 1))
    (workplace / "student.yaml").write_text(STUDENT)
    done = run_here("fit", "--config", "tiny.yaml")
    assert done.code == 0, done
    return workplace


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_mistakes_are_one_line_and_leave_no_run(taught: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(taught.rglob("*"))
    mistake = run_here(*FIT, *words).mistake
    assert all(part in mistake for part in told), mistake
    assert sorted(taught.rglob("*")) == before


def test_a_student_is_trained_resumed_and_drawn_without_its_teacher(taught: Path) -> None:
    assert run_here(*FIT).code == 0
    assert run_here("fit", "--ckpt_path", "runs/student", "--trainer.max_steps", "12").code == 0
    Path("runs/tiny").rename("elsewhere")
    done = run_here("predict", "--ckpt_path", "runs/student", "--seeds", "0-3")
    Path("elsewhere").rename("runs/tiny")
    assert done.code == 0, done
    bank = Bank.open("runs/student/banks/unconditional_0-3")
    assert len(bank.images) == 4
    manifest = json.loads(Path("runs/student/banks/unconditional_0-3/manifest.json").read_text())
    assert (manifest["sampler"]["name"], manifest["sampler"]["args"]["steps"]) == ("Euler", 1)
