"""Files of strangers: no config, run or bank makes the command line build, import, fetch or read anything unasked."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from commands import CONFIG, run_here

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
