"""Conditional models from the command line: labels in banks, guidance, between RP, and mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from commands import run_here
from image_files import encoded, pictures, write_folder

from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.checkpoints.native import read_checkpoint
from repro.denoisers import GuidedDenoiser
from repro.images import to_uint8
from repro.noise import NoiseStream

QUIET = ("--trainer.enable_progress_bar", "false")
DROPPING = ("--task", "conditional", "--model.network.label_dropout", "0.5")


@pytest.fixture(scope="module")
def three(trained: Path) -> Path:
    """The workplace with the runs tiny (unconditional), plain (conditional) and dropping (with label dropout)."""
    for name, words in {"plain": ("--task", "conditional"), "dropping": DROPPING}.items():
        done = run_here("fit", "--config", "tiny.yaml", "--name", name, *words)
        assert done.code == 0, done
    return trained


def predict(*words: str, code: int = 0) -> Bank:
    done = run_here("predict", *QUIET, *words)
    assert done.code == code, done
    return Bank.open(words[words.index("--output") + 1])


def test_labels_survive_interruption_and_any_sharding(three: Path) -> None:
    words = ("--ckpt_path", "runs/plain", "--seeds", "0-6")
    whole = predict(*words, "--output", "whole")
    assert whole.labels.tolist() == list(range(10)) * 7
    assert whole.seeds.tolist() == [seed for seed in range(7) for _ in range(10)]
    assert whole.manifest.labels == {"num_classes": 10, "images_per_seed": 10}
    parts = predict(*words, "--shard_size", "2", "--output", "parts")
    assert torch.equal(parts.labels, whole.labels)
    assert (parts.images.int() - whole.images.int()).abs().max() <= 1
    (three / "parts" / "images-00000001.npy").unlink()
    (three / "parts" / "labels-00000002.npy").rename(three / "parts" / "kept.npy")
    (three / "parts" / "images-00000002.npy").unlink()
    again = predict(*words, "--shard_size", "2", "--output", "parts")
    assert torch.equal(again.labels, parts.labels)
    assert torch.equal(again.images, parts.images)


def test_chosen_classes_are_those_of_a_full_bank(three: Path) -> None:
    words = ("--ckpt_path", "runs/plain", "--seeds", "0-2")
    whole, some = predict(*words, "--output", "all"), predict(*words, "--classes", "7,1-2", "--output", "some")
    assert some.labels.tolist() == [7, 1, 2] * 3
    rows = torch.tensor([10 * seed + label for seed in range(3) for label in (7, 1, 2)])
    assert (some.images.int() - whole.images[rows].int()).abs().max() <= 1
    clash = run_here("predict", *QUIET, *words, "--classes", "1,2,7", "--output", "some")
    assert "labels.classes is" in clash.mistake
    assert "drawn under different labels" in run_here("compare", "all", "some", "--output", "c").mistake


def test_guided_images_and_their_manifest(three: Path) -> None:
    words = ("predict", *QUIET, "--ckpt_path", "runs/dropping", "--seeds", "0-2", "--guidance", "2.5")
    assert run_here(*words).code == 0
    folder = three / "runs" / "dropping" / "banks" / "conditional-guidance2.5_0-2"
    bank, model = Bank.open(folder), load_model("runs/dropping")
    assert bank.manifest.guidance == 2.5
    guided, noise = GuidedDenoiser(model.denoiser, 2.5), NoiseStream(bank.seeds.tolist())
    right = model.sampler.sample(guided, noise, bank.labels)
    assert (bank.images.int() - to_uint8(right).int()).abs().max() <= 1
    assert (right - model.generate(NoiseStream(bank.seeds.tolist()), bank.labels)).abs().max() > 1e-4
    told = run_here(*words[:-1], "3", "--output", str(folder)).mistake
    assert "guidance is 2.5 there and 3.0 here" in told


def test_training_with_label_dropout_resumes_exactly(three: Path) -> None:
    words = ("fit", "--config", "tiny.yaml", *DROPPING, "--trainer.max_steps", "6")
    assert run_here(*words, "--name", "through").code == 0
    assert run_here(*words[:-1], "3", "--name", "stopped").code == 0
    gone_on = run_here("fit", "--ckpt_path", "runs/stopped", "--trainer.max_steps", "6")
    assert gone_on.code == 0, gone_on
    through, stopped = (read_checkpoint(f"runs/{name}")["state_dict"] for name in ("through", "stopped"))
    assert all(torch.equal(through[key], stopped[key]) for key in through)
    other = read_checkpoint("runs/plain")["state_dict"]
    assert not torch.equal(through["trained.network.inner.weight"], other["trained.network.inner.weight"])


def test_tested_against_both_kinds(three: Path) -> None:
    words = ("test", "--task", "conditional", "--seeds", "0-3", *QUIET, "--descriptor", "Pixels")
    done = run_here(*words, "--ckpt_path", "runs/plain", "--reference", "runs/dropping", "--reference", "runs/tiny")
    assert done.code == 0, done
    names = [line.partition(":")[0] for line in done.out.splitlines()]
    assert {"rp/dropping", "conditional_rp/dropping", "conditional_rp/dropping/class 9", "between_rp/tiny"} <= {*names}
    assert "rp/tiny" not in names
    assert "between_rp/tiny" in done.out
    assert done.out.partition("between_rp/tiny")[2].partition("\n")[0].endswith("n = 4")


def test_compared_with_guidance(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.comparison.write.figures", lambda comparison: ())
    done = run_here(
        "compare", "runs/dropping", "runs/tiny", "--seeds", "0-2", "--guidance", "1.5", "--output", "compared"
    )
    assert done.code == 0, done
    record = json.loads((three / "compared" / "comparison.json").read_text())
    assert [system["guidance"] for system in record["systems"]] == [1.5, 1.0]
    assert list(record["scores"]) == ["Between RP"]


FROM = ("predict", "--seeds", "0-1", "--ckpt_path")
MISTAKES = [
    ((*FROM, "runs/plain", "--guidance", "2"), "has no null class, because it was trained without label dropout"),
    ((*FROM, "runs/tiny", "--guidance", "2"), "the model was trained without labels; leave it out, or train one"),
    ((*FROM, "runs/dropping", "--guidance", "-1"), "guidance is -1; give a number of at least 0, such as 1.5"),
    ((*FROM, "runs/dropping", "--guidance", "two"), "guidance is 'two'; give a number"),
    ((*FROM, "runs/dropping", "--guidance", "2", "--task", "unconditional"), "draws without labels; leave it out"),
    ((*FROM, "runs/dropping", "--guidance", "2", "--task", "inpaint"), "--task inpaint draws without labels"),
    ((*FROM, "runs/plain", "--classes", "3,12"), "class 12 is outside the model's classes 0 to 9"),
    ((*FROM, "runs/plain", "--classes", "cat"), "cannot read classes 'cat'; write a range or a list"),
    ((*FROM, "runs/tiny", "--classes", "3"), "classes are 3, but --task unconditional draws none"),
    ((*FROM, "runs/tiny", "--task", "conditional"), "the model was trained without labels; use --task unconditional"),
    ((*FROM, "runs/plain", "--task", "unconditional"), "cannot sample without a label; use --task conditional"),
    (
        ("test", *FROM[1:], "runs/dropping", "--guidance", "2", "--reference", "runs/plain"),
        "runs/plain: guidance is 2, but the model has no null class",
    ),
    (
        ("compare", "runs/tiny", "runs/tiny", "--seeds", "0-1", "--guidance", "2"),
        "guidance and classes are for checkpoints with classes, and there is none",
    ),
    (
        ("fit", "--config", "tiny.yaml", "--model.network.label_dropout", "0.1"),
        "model.network: label_dropout is 0.1, but MLP has no classes; leave it out, or train with --task conditional",
    ),
    (
        ("fit", "--config", "tiny.yaml", "--task", "conditional", "--data", "ImageArchive", "--data.path", "flat"),
        "--task conditional needs data with classes; these have none: name other data",
    ),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words)[-60:] for words, _ in MISTAKES])
def test_mistakes_are_one_line(three: Path, words: tuple[str, ...], message: str) -> None:
    from PIL import Image

    (three / "flat").mkdir(exist_ok=True)
    for number in range(8):
        Image.new("L", (8, 8), number).save(three / "flat" / f"{number}.png")
    assert message in run_here(*words).mistake


def test_classes_go_by_their_names(workplace: Path) -> None:
    files = {f"{name}/{i}.png": encoded(pictures(1, seed=i)[0]) for name in ("dog", "cat", "10", "2") for i in range(3)}
    photos = write_folder(workplace / "photos", files)
    for seed in ("0", "1"):
        words = ("--data", "ImageArchive", "--data.path", photos, "--data.subset", "12", "--task", "conditional")
        done = run_here("fit", "--config", "tiny.yaml", *words, "--model.seed", seed, "--output", f"animals{seed}")
        assert done.code == 0, done
        assert "(4 classes: 2, 10, cat, dog)" in done.out  # in natural order
        assert json.loads(Path(f"animals{seed}/run.json").read_text())["class_names"] == ["2", "10", "cat", "dog"]
    run = ("--ckpt_path", "animals0", "--seeds", "0-1")
    named = predict(*run, "--classes", "dog, cat", "--output", "named")
    assert named.labels.tolist() == [3, 2] * 2
    assert named.manifest.class_names == ("2", "10", "cat", "dog")
    assert predict(*run, "--classes", "10", "--output", "ten").labels.tolist() == [1] * 2  # a name before a number
    assert predict(*run, "--classes", "0-1,3", "--output", "numbers").labels.tolist() == [0, 1, 3] * 2
    mistake = run_here("predict", *run, "--classes", "cat,dig", "--output", "none").mistake
    assert "unknown class 'dig'; did you mean 'dog'? known: 2, 10, cat, dog" in mistake
    done = run_here("compare", "animals0", "animals1", "--seeds", "0-1", "--descriptor", "Pixels", "--output", "both")
    assert done.code == 0, done
    assert "dog" in done.out
    rows = list(csv.DictReader(Path("both/conditional.csv").read_text().splitlines()))
    assert [(row["class"], row["class_name"]) for row in rows][:5] == [
        ("0", "2"), ("1", "10"), ("2", "cat"), ("3", "dog"), ("mean", "mean")
    ]  # fmt: skip
    old = json.loads(Path("named/manifest.json").read_text())
    old["labels"]["class_names"] = ["\x1b", "too few"]
    Path("named/manifest.json").write_text(json.dumps(old))
    assert "class_names are" in run_here("compare", "named", "named", "--descriptor", "Pixels").mistake
