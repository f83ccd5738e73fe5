"""Whatever can be compared is taken, named and numbered, and banks that are there are not drawn again."""

import numpy as np
import pytest
import torch
from PIL import Image
from trainings import trainer

import repro
from repro import compare
from repro.banks import Bank
from repro.data import Digits
from repro.drawing import draw, kind_of, systems_of
from repro.errors import UserError
from repro.kernels import EDM
from repro.networks import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers import Heun
from repro.training import Diffusion


def small():
    return Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        trainer(folder / name, 1).fit(small(), datamodule=Digits(subset=32, batch_size=8))
    return folder


def pictures(n=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def test_all_forms_together(runs, tmp_path):
    named, ordered = tmp_path / "named", tmp_path / "ordered"
    for folder, names in ((named, ("5", "0", "2", "1", "4", "3")), (ordered, "abcdef")):
        folder.mkdir()
        for name, picture in zip(names, pictures(), strict=True):
            Image.fromarray(picture).save(folder / f"{name}.png")
    np.savez(tmp_path / "arrays.npz", pictures())
    np.save(tmp_path / "array.npy", pictures()[:, None] / 255)
    bank = draw(runs / "one", "0-5", output=tmp_path / "bank")
    given = [
        str(runs / "two"),
        f"mine={runs / 'one' / 'checkpoints' / 'last.ckpt'}",
        tmp_path / "bank",
        bank,
        named,
        ordered,
        tmp_path / "arrays.npz",
        tmp_path / "array.npy",
        torch.from_numpy(pictures()),
        pictures(),
    ]
    kinds = ["model", "bank", "images", "images", "images", "images"]
    paths = [runs / "two", tmp_path / "bank", named, ordered, tmp_path / "arrays.npz", tmp_path / "array.npy"]
    assert [kind_of(path) for path in paths] == kinds
    result = compare(given, "Pixels")
    assert result.n == 6
    assert result.names[1] == "mine"
    assert len(set(result.names)) == 10
    assert torch.equal(result.banks[1].images, bank.images)
    assert torch.equal(result.banks[4].images[[5, 0, 2, 1, 4, 3], 0], torch.from_numpy(pictures()))
    for other in (6, 7, 8, 9):
        assert torch.equal(result.banks[5].images, result.banks[other].images)
    notes = "\n".join(result.notes)
    assert f"named: 6 images at {named}, numbered by the names of their files" in notes
    assert f"ordered: 6 images at {ordered}, numbered by their order" in notes
    assert any(remark.startswith("nothing says that the images of named, ordered") for remark in result.remarks())


def test_banks_that_are_there_are_used(runs, monkeypatch):
    for name, seeds in (("one", "0-11"), ("one", "50-52"), ("two", "4-15")):
        draw(runs / name, seeds)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.npy")}
    result = compare([runs / "one", runs / "two"], "Pixels")
    assert result.banks[0].seeds.tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*.npy")} == before
    assert [note.partition(":")[0] for note in result.notes] == ["one", "two"]
    again = compare([runs / "one", runs / "two"], "Pixels", seeds="5-7")
    assert torch.equal(again.banks[1].images, result.banks[1].images[1:4])
    other = compare([runs / "one", runs / "two"], "Pixels", seeds="60-61")
    assert other.notes == []
    assert {path.stat().st_mtime_ns for path in runs.rglob("*60-61/images*.npy")} - {*before.values()}


def test_a_bank_of_other_weights_is_not_used(runs, tmp_path):
    draw(runs / "one", "0-3")
    moved = tmp_path / "three"
    (moved / "banks").mkdir(parents=True)
    (moved / "checkpoints").symlink_to(runs / "two" / "checkpoints")
    (moved / "banks" / "unconditional_0-3").symlink_to(runs / "one" / "banks" / "unconditional_0-3")
    result = compare([moved, runs / "one"], "Pixels", seeds="0-3")
    assert torch.equal(result.banks[0].images, repro.load(runs / "two").sample(range(4)))
    assert result.banks[0].path != moved / "banks" / "unconditional_0-3"


def test_nothing_is_drawn_before_everything_is_checked(runs):
    before = {*runs.rglob("*.npy")}
    for options, word in (
        ({"threshold": 7}, "threshold 7 is outside"),
        ({"mae_threshold": -1}, "MAE threshold -1"),
        ({"confidence": 2}, "confidence 2"),
        ({"metrics": ["MAEScor"]}, "did you mean 'MAEScore'"),
        ({"paired": ["three"]}, "unknown system 'three'"),
        ({"train": torch.zeros(3, 1, 9, 9, dtype=torch.uint8)}, "shape (1, 9, 9)"),
        ({"guidance": 2.0}, "guidance and classes are for checkpoints with classes"),
    ):
        with pytest.raises(UserError) as caught:
            compare([runs / "one", runs / "two"], "Pixels", seeds="700-702", **options)
        assert word in str(caught.value)
    with pytest.raises(UserError, match="compare images of one size"):
        compare([runs / "one", np.zeros((3, 9, 9), np.uint8)], "Pixels")
    assert {*runs.rglob("*.npy")} == before


def test_mappings_name_and_models_in_memory_draw_in_memory(runs):
    model = small().model
    models = {"a": model, "b": model}
    result = compare(models, "Pixels", seeds="0-4", train="recorded")
    assert result.names == ["a", "b"]
    assert result.scores["RP"].counts.tolist() == [[5, 5], [5, 5]]
    assert result.banks[0].path is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["nowhere", "else"], "there is no bank, run or checkpoint at nowhere"),
        (["name=nowhere", "else"], "there is no bank, run or checkpoint at nowhere"),
        ([3, 4], "is a int; give a bank, a model, a path, or a tensor or array of images"),
        (
            [np.zeros((2, 8, 8, 3, 1)), np.zeros((2, 8, 8))],
            "give images (n, C, H, W) or (n, H, W, C)",
        ),
        ([np.full((2, 8, 8), 3.0), np.zeros((2, 8, 8))], "holds floats from 3 to 3; give floats in [0, 1] or [-1, 1]"),
    ],
)
def test_mistakes_are_one_line(given, word):
    with pytest.raises(UserError) as caught:
        systems_of(given)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bank_keeps_its_own_numbers():
    bank = Bank.from_images(torch.from_numpy(pictures())[:, None], [9, 7, 5, 3, 1, 0])
    (system,) = systems_of({"mine": bank})
    assert (system.name, system.manifest.seeds, system.open() is bank) == ("mine", [9, 7, 5, 3, 1, 0], True)
