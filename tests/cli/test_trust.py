"""Files of strangers: no config, run or bank makes the command line build, import, fetch or read anything unasked."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import CONFIG, run_here
from image_files import encoded, pictures, write_folder

from repro.training import source

PROGRAM = {"class_path": "subprocess.Popen", "init_args": {"args": "touch started", "shell": True}}


def config(**changes: object) -> dict:
    settings = yaml.safe_load(CONFIG)
    for key, value in changes.items():
        *above, last = key.split("__")
        place = settings
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return settings


PLACES = {
    "below a dict": config(model__init_args__optimizer_args={"betas": PROGRAM}),
    "below a dict, a list": config(model__init_args__optimizer_args={"betas": [PROGRAM, PROGRAM]}),
    "open arguments of a logger": config(
        trainer__logger={
            "class_path": "TensorBoardLogger",
            "init_args": {"save_dir": "x"},
            "dict_kwargs": {"a": PROGRAM},
        }
    ),
    "a function for a callback": config(
        trainer__callbacks=[{"class_path": "LambdaCallback", "init_args": {"on_fit_start": "os.abort"}}]
    ),
    "in place of a callback": config(trainer__callbacks=[PROGRAM]),
    "in place of a network": config(model__init_args__network=PROGRAM),
    "in place of the data": config(data=PROGRAM),
    "in place of a number": config(model__init_args__lr=PROGRAM),
    "below a setting of the trainer": config(trainer__max_time=PROGRAM),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_config_starts_no_program(workplace: Path, place: str) -> None:
    (workplace / "evil.yaml").write_text(yaml.safe_dump(PLACES[place]))
    with contextlib.suppress(TypeError):  # of TensorBoard, which has no such argument
        assert run_here("fit", "--config", "evil.yaml", "--output", "evil").mistake
    assert not (workplace / "started").exists()
    assert not (workplace / "evil").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer__callbacks": [{"class_path": "intruder.Callback"}]}, "own config names registered classes only"),
        ({"model__args__network": {"name": "intruder.Net", "args": {}}}, "own config names registered classes only"),
        ({"trainer__strategy": "intruder.Strategy", "trainer__max_steps": 4}, "trainer: "),
    ],
)
def test_the_config_of_a_run_imports_nothing(trained: Path, monkeypatch, changes: dict, message: str) -> None:
    shutil.rmtree(trained / "strange", ignore_errors=True)
    shutil.copytree(trained / "runs" / "tiny", trained / "strange")
    (trained / "intruder.py").write_text("import pathlib; pathlib.Path('imported').touch()")
    monkeypatch.syspath_prepend(str(trained))
    settings = yaml.safe_load((trained / "strange" / "config.yaml").read_text())
    for key, value in changes.items():
        *above, last = key.split("__")
        place = settings
        for part in above:
            place = place.get(part) or place[{"args": "init_args"}[part]]
        place[last] = value
    (trained / "strange" / "config.yaml").write_text(yaml.safe_dump(settings))
    assert message in run_here("fit", "--ckpt_path", "strange").mistake
    assert not (trained / "imported").exists()
    assert "intruder" not in sys.modules


def test_a_bank_reaches_nothing(trained: Path) -> None:
    for name in ("a", "b"):
        assert run_here("predict", "--ckpt_path", "runs/tiny", "--seeds", "0-3", "--output", name).code == 0
    path = trained / "b" / "manifest.json"
    manifest = json.loads(path.read_text())
    pictures = {"group": "data", "name": "ImageArchive", "args": {"path": str(trained)}}
    chosen = {"group": "data", "name": "MNIST", "args": {"root": str(trained / "chosen")}}
    for data in (pictures, chosen):
        path.write_text(
            json.dumps(
                {**manifest, "data": data, "sha256": None} if "sha256" in manifest else {**manifest, "data": data}
            )
        )
        done = run_here("compare", "a", "b", "--descriptor", "Pixels", "--output", "c")
        assert "which are not read unasked" in done.err or done.code == 2
        assert not (trained / "chosen").exists()


BOMBS = {
    "laughs": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
    "deep": "a: " + "[" * 3000 + "]" * 3000,
    "itself": "model: &m {class_path: Diffusion, init_args: *m}",
    "object": "model: !!python/object/apply:os.system ['touch started']",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_is_bounded(workplace: Path, bomb: str) -> None:
    (workplace / "bomb.yaml").write_text(BOMBS[bomb])
    assert "config file bomb.yaml" in run_here("fit", "--config", "bomb.yaml").mistake
    assert not (workplace / "started").exists()


SHORT = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.max_steps")
HELD_OUT = ("--data", "Digits", "--data.batch_size", "8", "--data.subset", "16", "--data.holdout", "8")


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has trained nothing here: what he is sent are files of strangers."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache of nobody"))


@pytest.fixture(scope="module")
def students(trained: Path) -> dict[str, str]:
    """Runs that began from another one: role -> folder."""
    words = {
        "start": ("--task", "finetune", "--model.start", "runs/tiny", "--model.parameters", "*.bias"),
        "teacher": ("--model", "ConsistencyDistillation", "--model.teacher", "runs/tiny", "--model.levels", "4"),
    }
    for role, more in words.items():
        done = run_here("fit", *more, *HELD_OUT, *SHORT, "2", "--output", f"strange_{role}")
        assert done.code == 0, done
    return {role: f"strange_{role}" for role in words}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The teachers and starts that were read."""
    paths: list[str] = []
    real = source.load_model
    monkeypatch.setattr(source, "load_model", lambda path: paths.append(str(path)) or real(path))
    return paths


@pytest.mark.parametrize("role", ["start", "teacher"])
def test_the_teacher_of_a_strangers_run_is_read_only_when_the_user_names_it(students, nobody, read, role) -> None:
    run = students[role]
    refused = run_here("fit", "--ckpt_path", run, *SHORT, "4").mistake
    assert f"{role} runs/tiny is outside of that run, and not read unasked" in refused
    assert f"type --config {run}/config.yaml" in refused
    assert read == []
    again = run_here("fit", "--ckpt_path", run, "--config", f"{run}/config.yaml", *SHORT, "4")
    assert again.code == 0, again
    assert run_here("fit", "--ckpt_path", run, *SHORT, "6").code == 0  # known by now
    assert set(read) == {"runs/tiny"}


def test_a_strangers_run_is_validated_without_its_start_and_not_with_its_teacher(students, nobody, read) -> None:
    done = run_here("validate", "--ckpt_path", students["start"])
    assert (done.code, read) == (0, []), done
    refused = run_here("validate", "--ckpt_path", students["teacher"]).mistake
    assert "the teacher runs/tiny is outside of the file that names it, and not read unasked" in refused
    assert read == []
    config = ("--config", f"{students['teacher']}/config.yaml")
    done = run_here("validate", "--ckpt_path", students["teacher"], *config)
    assert done.code == 0, done


def test_a_record_that_needs_its_start_is_not_built(students, nobody, read, tmp_path: Path) -> None:
    checkpoint = torch.load(Path(students["start"]) / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["repro"]["training"]["record"]["args"]["network"] = None
    torch.save(checkpoint, tmp_path / "x.ckpt")
    assert "not read unasked" in run_here("validate", "--ckpt_path", tmp_path / "x.ckpt").mistake
    assert read == []


def test_the_images_of_a_strangers_run_are_read_only_when_the_user_names_them(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_folder(tmp_path / "photos", {f"{i}.png": encoded(image) for i, image in enumerate(pictures(16))})
    words = ("--config", "tiny.yaml", "--data", "ImageArchive", "--data.path", photos, "--data.subset", "12")
    assert run_here("fit", *words, "--output", "strange_photos").code == 0
    assert run_here("fit", "--ckpt_path", "strange_photos", *SHORT, "4").code == 0
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache of nobody"))
    refused = run_here("fit", "--ckpt_path", "strange_photos", *SHORT, "5").mistake
    assert "photos' is outside of the file that names it, and not read unasked" in refused
    assert "type --config strange_photos/config.yaml" in refused
    assert run_here("fit", "--ckpt_path", "strange_photos", "--data.path", photos, *SHORT, "5").code == 0
    assert run_here("fit", "--ckpt_path", "strange_photos", *SHORT, "6").code == 0


def test_a_strangers_formula_reads_no_images(trained: Path, nobody, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {f"{i}.png": encoded(image) for i, image in enumerate(pictures(4))})

    def record(group: str, name: str, **args: object) -> dict:
        return {"group": group, "name": name, "args": args}

    images, kernel = record("data", "ImageArchive", path=str(tmp_path / "photos")), record("kernels", "EDM")
    formula = record("denoisers", "EmpiricalDenoiser", images=images, kernel=kernel)
    checkpoint = torch.load(trained / "runs" / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["repro"]["model"]["record"] = record(
        "models", "Exact", denoiser=formula, sampler=record("samplers", "Heun")
    )
    torch.save(checkpoint, tmp_path / "x.ckpt")
    words = ("--ckpt_path", tmp_path / "x.ckpt", "--seeds", "0-1", "--output", tmp_path / "bank")
    assert "photos' is outside of the file that names it, and not read unasked" in run_here("predict", *words).mistake
