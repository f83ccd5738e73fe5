"""The task finetune from the command line: what it takes from the start, and a user's mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from commands import run_here

from repro.banks import Bank

TRAINER = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_steps", "2")
FIT = ("fit", "--task", "finetune", "--data", "Digits", "--data.batch_size", "8", *TRAINER)
FROM = (*FIT, "--model.start", "runs/tiny", "--model.parameters", "*.bias")


def test_the_task_takes_fine_tuning_and_the_newest_fine_tuned_run(trained: Path) -> None:
    done = run_here(*FROM, "--data.subset", "16", "--name", "tuned")
    assert done.code == 0, done
    assert done.out.startswith("FineTuning, ")
    saved = yaml.safe_load(Path("runs/tuned/config.yaml").read_text())
    assert (saved["task"], saved["model"]["class_path"]) == ("finetune", "FineTuning")
    assert run_here("fit", "--config", "tiny.yaml", "--name", "later").code == 0
    done = run_here("predict", "--task", "finetune", "--seeds", "0-3")
    assert done.code == 0, done
    assert "using runs/tuned" in done.err
    assert len(Bank.open("runs/tuned/banks/finetune_0-3")) == 4


def test_a_conditional_start_stays_conditional(conditional: Path) -> None:
    done = run_here(*FIT, "--model.start", "runs/classes", "--model.parameters", "all", "--name", "tuned_classes")
    assert done.code == 0, done
    done = run_here("predict", "--task", "finetune", "--ckpt_path", "runs/tuned_classes", "--seeds", "0-1")
    assert done.code == 0, done
    assert Bank.open("runs/tuned_classes/banks/finetune_0-1").labels.tolist() == [*range(10)] * 2


MISTAKES = [
    (
        FIT,
        ["model (FineTuning) needs start; give --model.start", "a checkpoint, a run's folder, or an author-released"],
    ),
    ((*FIT, "--model.start", "runs/tinny"), ["start: no checkpoint at runs/tinny"]),
    (
        (*FIT, "--model.start", "runs/tiny"),
        ["parameters is 'attention', but this MLP has none", "--model.parameters all"],
    ),
    ((*FROM, "--data.resize", "16"), ["the start is for images 1x8x8, Digits has 1x16x16", "--model.start PATH"]),
    ((*FROM[:-1], "*wieght"), ["no parameter matches '*wieght'", "names near it: "]),
    ((*FROM, "--data.classes", "[3,10]"), ["10 is not in the data", "0 to 9"]),
    (
        (*FIT, "--model.start", "runs/classes", "--model.parameters", "all", "--data.classes", "[3,4]"),
        ["model.start has 10 classes, but --task finetune on Digits has 2", "--model.start PATH"],
    ),
    (("fit", "--config", "tiny.yaml", "--task", "finetune"), ["trains with FineTuning, not Diffusion", "--model Fine"]),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[-60:])
def test_mistakes_are_one_line_and_leave_nothing(conditional: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(conditional.rglob("*"))
    mistake = run_here(*words).mistake
    assert all(part in mistake for part in told), mistake
    assert sorted(conditional.rglob("*")) == before
