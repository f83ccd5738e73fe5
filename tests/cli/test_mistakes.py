"""Every mistake of a user is one line that says what is wrong and what to type; nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import CONFIG, run_here
from PIL import Image

from repro.banks import BankWriter
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
    ((*FIT, "--data", "ImageArchive", "--data.path", "empty"), ["empty holds no image", ".png"]),
    ((*FIT, "--data", "ImageArchive", "--data.path", "unread"), ["unread: image '1.png' is not an image", "remove"]),
    ((*FIT, "--data", "ImageArchive", "--data.path", "mixed"), ["'1.png' is 12x12", "--data.resize 8"]),
    ((*FIT, "--data", "ImageArchive", "--data.path", "tiny.yaml"), ["neither a folder, a zip nor a tar"]),
    ((*FIT, "--data.classes", "3,10"), ["class 10 is not in the data: give 0 to 9"]),
    ((*FIT, "--data.num_workers", "1"), ["Digits has no argument 'num_workers'; did you mean 'workers'?"]),
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
    ((*FIT, "--trainer.devices", "-2"), ["trainer: ", "should be an int > 0"]),
    ((*FIT, "--trainer.strategy", "dpp"), ["trainer: ", "strategy='dpp'"]),
    (
        (*FIT, "--trainer.precision", "bf17-mixed"),
        ["is 'bf17-mixed'; give", "'16-mixed'", "did you mean 'bf16-mixed'?"],
    ),
    ((*FIT, "--trainer.max_steps", "-5"), ["max_steps is -5; give at least -1"]),
    ((*FIT, "--trainer.max_steps", "0"), ["trainer.max_steps is 0, which trains nothing; give at least 1"]),
    ((*FIT, "--trainer.accumulate_grad_batches", "0"), ["accumulate_grad_batches is 0; give at least 1"]),
    ((*FIT, "--trainer.gradient_clip_val", "-1"), ["gradient_clip_val is -1; give at least 0"]),
    ((*FIT, "--trainer.limit_train_batches", "-1"), ["trainer: ", "for limit_train_batches, it has to be in"]),
    ((*FIT, "--trainer.logger", "TensorBoardLoger"), ["did you mean 'TensorBoardLogger'?"]),
    ((*FIT, "--trainer.logger.foo", "3"), ["type --trainer.logger NAME first"]),
    ((*FIT, "--seed_everything", "-4"), ["seed_everything is -4; give 0 to 4294967295"]),
    ((*FIT, "--model.ema_halflife", "-1"), ["model: ema_halflife is -1; give at least 0"]),
    ((*FIT, "--ckpt_path", "bank"), ["bank is a bank of images, not a run", "repro compare bank OTHER"]),
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
    (("fit", "--config", "tab.yaml"), ["tab.yaml is not valid YAML, line 3", "indent with spaces, not tabs"]),
    (("fit", "--config", "latin.yaml"), ["latin.yaml is no text file in UTF-8", "at byte 4"]),
    (("fit", "--config", "deep.yaml"), ["unknown key model.network.widht", "did you mean 'width'?", "deep.yaml"]),
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
    (("predict", "--ckpt_path", "bank"), ["bank is a bank of images, not a run or checkpoint"]),
    (("test", "--ckpt_path", "bank"), ["bank is a bank of images, not a run or checkpoint"]),
    (("predict", "--sampler.steps", "3"), ["type --sampler NAME first"]),
    (("predict", "--precision", "half"), ["unknown option --precision; did you mean --trainer.precision?"]),
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
    (("compare", "images", "mixed"), ["mixed holds images of several sizes: '0.png' is 8x8, '1.png' is 12x12"]),
    (
        ("compare", "images", "unread"),
        ["unread: image '1.png' is not an image of a known format; remove or"],
    ),
    (("compare", "images", "larger"), ["'larger' holds images of shape (3, 12, 12), 'images' of (3, 8, 8)"]),
    (("compare", "images", "fewer"), ["'fewer' holds seeds 0-1, 'images' 0-2", "--seeds 0-1"]),
    (("compare", "images", "images", "--seeds", "5-9"), ["has no seed 5; it holds 0-2"]),
    (("compare", "images", "images", "--seeds", "9-5"), ["seed range '9-5' is empty", "0-9999"]),
    (("compare", "images", "fewer", "--names", "a,b"), ["1 different names for 2 systems", "--names A B"]),
    (("compare", "images", "fewer", "--threshold", "7"), ["threshold 7.0 is outside [-1, 1]"]),
    (("compare", "images", "nothing.npz"), ["nothing.npz holds other float64 (3,)", "(n, H, W, C)"]),
    (("compare", "images", "tiny.yaml"), ["cannot read tiny.yaml"]),
    (("import", "images"), ["images is a folder; name the checkpoint file in it"]),
    (("import", "no.pth"), ["there is no file no.pth"]),
    (("study", "similarit"), ["unknown study 'similarit'; did you mean 'similarity'?"]),
    (("study", "similarity", "--scale", "tinny"), ["unknown scale 'tinny'; did you mean 'tiny'?"]),
    (("study", "similarity", "--executor", "Rai"), ["unknown executor 'Rai'; did you mean 'Ray'?", "Local"]),
    (("plugins", "foo"), ["unknown plug-in group 'foo'", "kernels"]),
    (("new", "full"), ["full exists; give another name"]),
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
        "tab.yaml": CONFIG.replace("  ", "\t", 1),
        "deep.yaml": CONFIG.replace("width", "widht"),
        "garbage.ckpt": "PK\x03\x04 not a checkpoint",
        "full/data.txt": "mine",
    }
    for name, text in files.items():
        (workplace / name).parent.mkdir(exist_ok=True)
        (workplace / name).write_text(text)
    (workplace / "latin.yaml").write_bytes("# Größe\n".encode("latin-1") + CONFIG.encode())
    (workplace / "empty").mkdir()
    sizes = {"images": (8, 8, 8), "fewer": (8, 8), "mixed": (8, 12, 8), "larger": (12, 12, 12), "unread": (8, 8, 8)}
    for name, sides in sizes.items():
        (workplace / name).mkdir()
        for number, side in enumerate(sides):
            Image.effect_noise((side, side), 50).convert("RGB").save(workplace / name / f"{number}.png")
    (workplace / "unread" / "1.png").write_bytes(b"no image")
    np.savez(workplace / "nothing.npz", other=np.zeros(3))
    writer = BankWriter(workplace / "bank", {"seeds": [0, 1], "image_shape": (1, 8, 8)})
    writer.write([0, 1], torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    return workplace


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_one_line_and_nothing_left(broken: Path, words: tuple[str, ...], told: list[str]) -> None:
    before = sorted(broken.rglob("*"))
    mistake = run_here(*words).mistake
    assert all(part in mistake for part in told), mistake
    assert sorted(broken.rglob("*")) == before


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("wandb", (*FIT, "--trainer.logger", "WandbLogger")),
        ("mlflow", (*FIT, "--trainer.logger", "MLFlowLogger")),
        ("ray", ("study", "similarity", "--scale", "tiny", "--executor", "Ray")),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    broken: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    before = sorted(broken.rglob("*"))
    mistake = run_here(*words).mistake
    assert package in mistake, mistake
    assert "pip install" in mistake, mistake
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
