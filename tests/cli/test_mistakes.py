"""Every mistake of a user is one line that says what is wrong and what to type; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import CONFIG, run_here

from repro.errors import UserError

FIT = ("fit", "--config", "tiny.yaml")

MISTAKES = [
    ((*FIT, "--model.network", "MPL"), ["unknown network 'MPL'; did you mean 'MLP'?", "UViT"]),
    ((*FIT, "--data", "Digts"), ["unknown data 'Digts'; did you mean 'Digits'?", "repro plugins data"]),
    ((*FIT, "--model", "Difusion"), ["unknown module for model 'Difusion'; did you mean 'Diffusion'?"]),
    ((*FIT, "--model.kernel", "SongUNet"), ["unknown kernel 'SongUNet'", "VP"]),
    ((*FIT, "--model.lrr", "1"), ["model.lrr", "did you mean 'lr'?"]),
    ((*FIT, "--model.network.widht", "1"), ["model.network.widht: MLP has no argument 'widht'; did you mean 'width'?"]),
    ((*FIT, "--data.pth", "x"), ["data.pth: Digits has no argument 'pth'", "batch_size"]),
    ((*FIT, "--modle.network", "MLP"), ["unknown option --modle.network; did you mean --model.network?"]),
    ((*FIT, "--trainer.max_stesp", "1"), ["--trainer.max_stesp; did you mean --trainer.max_steps?", "fit --help"]),
    ((*FIT, "--trainer.max_step", "1"), ["did you mean --trainer.max_steps?"]),
    ((*FIT, "stray"), ["unexpected 'stray'"]),
    ((*FIT, "--model.lr", "abc"), ["model.lr is 'abc'; give a number"]),
    ((*FIT, "--trainer.max_steps", "x"), ["trainer.max_steps is 'x'; give an integer"]),
    ((*FIT, "--model.network.width", "6.5"), ["model.network.width is '6.5'; give an integer"]),
    ((*FIT, "--model.compile", "maybe"), ["model.compile is 'maybe'; give true or false"]),
    ((*FIT, "--seed_everything", "x"), ["seed_everything is 'x'"]),
    ((*FIT, "--model.optimizer_args", "3"), ["model.optimizer_args", "give a mapping"]),
    ((*FIT, "--trainer.max_steps"), ["--trainer.max_steps needs a value"]),
    ((*FIT, "--model.network", "nowhere.Net"), ["model.network: No module named 'nowhere'"]),
    ((*FIT, "--trainer.callbacks", "Foo"), ["trainer.callbacks: no class 'Foo'"]),
    ((*FIT, "--trainer.callbacks", "LearningRateMonitr"), ["did you mean 'LearningRateMonitor'?"]),
    ((*FIT, "--data", "ImageArchive"), ["data (ImageArchive) needs path; give --data.path"]),
    ((*FIT, "--data", "ImageArchive", "--data.path", "no.zip"), ["no.zip does not exist"]),
    ((*FIT, "--data.subset", "5000"), ["subset is 5000 but Digits has 1797 images"]),
    ((*FIT, "--data.batch_size", "0"), ["data: batch_size is 0"]),
    ((*FIT, "--model.network.width", "-3"), ["model.network: ", "width of MLP is -3"]),
    ((*FIT, "--model.lr", "-1"), ["model: lr is -1"]),
    ((*FIT, "--model.optimizer", "Adma"), ["unknown optimizer 'Adma'; did you mean 'Adam"]),
    ((*FIT, "--model.network.image_size", "16"), ["is 16, but Digits has 8", "--model.network.image_size 8"]),
    ((*FIT, "--model.network.num_classes", "5"), ["is 5, but --task conditional on Digits has 10"]),
    ((*FIT, "--task", "condtional"), ["unknown task 'condtional'; did you mean 'conditional'?"]),
    ((*FIT, "--trainer.accelerator", "foo"), ["trainer: ", "foo", "cpu"]),
    ((*FIT, "--trainer.devices", "0"), ["trainer: ", "devices"]),
    ((*FIT, "--trainer.devices", "3"), ["batch_size is 8, over all ranks, but there are 3 ranks"]),
    (
        (*FIT, "--data.holdout", "8", "--trainer.val_check_interval", "77"),
        ["trainer: ", "`val_check_interval` (77) must be less than or equal to"],
    ),
    ((*FIT, "--ckpt_path", "no.ckpt"), ["no checkpoint at no.ckpt"]),
    ((*FIT, "--ckpt_path", "garbage.ckpt"), ["garbage.ckpt", "it is cut off, or no checkpoint of repro"]),
    ((*FIT, "--ckpt_path", "last"), ["no run runs/tiny has a checkpoint"]),
    ((*FIT, "--name", "a/b"), ["--name a/b is a path; type --output a/b"]),
    ((*FIT, "--output", "tiny.yaml/x"), ["cannot make the run folder tiny.yaml/x"]),
    ((*FIT, "--output", "full"), ["--output full is not empty"]),
    (("fit",), ["model (Diffusion) needs network, kernel, parameterization, sampler", "--config FILE"]),
    (("fit", "--config", "tinny.yaml"), ["config file tinny.yaml does not exist; did you mean tiny.yaml?"]),
    (("fit", "--config", "full"), ["config file full is a folder"]),
    (("fit", "--config", "broken.yaml"), ["config file broken.yaml is not valid YAML, line 3"]),
    (("fit", "--config", "list.yaml"), ["config file list.yaml holds a list"]),
    (("fit", "--config", "key.yaml"), ["unknown option --modle; did you mean --model?"]),
    (("fit", "--config", "trainer.yaml"), ["--trainer.max_stesp; did you mean --trainer.max_steps?"]),
    (("fit", "--config", "beside.yaml"), ["beside.yaml: model.network has 'width' beside class_path", "init_args"]),
    (("fit", "--model", "Exact", "--model.sampler", "Heun"), ["model (Exact) needs denoiser"]),
    (("new",), ["name the package: repro new my-models"]),
    (("predict",), ["no finished run in runs/ fits", "repro fit --config", "--ckpt_path"]),
    (("predict", "--config", "tiny.yaml"), ["no finished run in runs/ fits; train one: repro fit --config tiny.yaml"]),
    (("predict", "--ckpt_path", "no.ckpt"), ["no checkpoint at no.ckpt"]),
    (("predict", "--ckpt_path", "garbage.ckpt"), ["garbage.ckpt", "it is cut off, or no checkpoint of repro"]),
    (("predict", "--sampler", "Hean"), ["unknown sampler 'Hean'; did you mean 'Heun'?"]),
    (
        ("predict", "--model.network", "MLP"),
        ["model.network is given, but not of which class; type --model NAME first"],
    ),
    (("fit", "--model.help", "Difusion"), ["unknown module for model 'Difusion'; did you mean 'Diffusion'?"]),
    (("test",), ["no finished run in runs/ fits"]),
    (("test", "--descriptor", "Pixel"), ["unknown descriptor 'Pixel'; did you mean 'Pixels'?"]),
    (("validate",), ["no finished run in runs/ fits"]),
    (("compare",), ["name at least two banks"]),
    (("compare", "a", "b"), ["there is no bank, run or checkpoint at a"]),
    (("compare", "full", "full"), ["full holds no image"]),
    (("compare", "full", "full", "--seds", "1"), ["unknown option --seds; did you mean --seeds?"]),
]


@pytest.fixture(scope="module")
def broken(workplace: Path) -> Path:
    """The workplace with files that are wrong in their own ways."""
    files = {
        "broken.yaml": "model: [\n x: 1\n",
        "list.yaml": "- 3\n",
        "key.yaml": CONFIG + "modle: 3\n",
        "trainer.yaml": CONFIG.replace("max_steps", "max_stesp"),
        "beside.yaml": CONFIG.replace("init_args: {width: 16, depth: 1}", "width: 16"),
        "garbage.ckpt": "PK\x03\x04 not a checkpoint",
        "full/data.txt": "mine",
    }
    for name, text in files.items():
        (workplace / name).parent.mkdir(exist_ok=True)
        (workplace / name).write_text(text)
    return workplace


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_one_line_and_nothing_left(broken: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(broken.rglob("*"))
    mistake = run_here(*words).mistake
    assert all(part in mistake for part in told), mistake
    assert sorted(broken.rglob("*")) == before


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("repro.training.diffusion.Diffusion.training_step", fail)


def test_a_mistake_found_at_the_first_step_leaves_no_folder(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, UserError("image 7 is\n broken; remove it"))
    assert run_here(*FIT).mistake == "image 7 is broken; remove it"
    assert not (broken / "runs").exists()
    assert run_here(*FIT, "--output", "new").mistake == "image 7 is broken; remove it"
    assert not (broken / "new").exists()


def test_a_bug_keeps_its_traceback(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, AttributeError("a bug"))
    with pytest.raises(AttributeError, match="a bug"):
        run_here(*FIT)
    assert not (broken / "runs").exists()
