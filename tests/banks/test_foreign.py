"""Banks of samples that others released: numbered by name or by order, nothing executed."""

import numpy as np
import pytest
import torch
from PIL import Image

from repro.banks import Bank
from repro.banks.foreign import as_images
from repro.errors import UserError


def pictures(count, size=4, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def chw(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_files_named_by_numbers_have_these_seeds(tmp_path):
    made = pictures(3)
    for number, picture in zip((12, 3, 100), made, strict=True):
        folder = tmp_path / f"{number // 1000:06d}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:06d}.png")
    (tmp_path / "README.txt").write_text("not an image")
    bank = Bank.from_folder(tmp_path)
    assert bank.seeds.tolist() == [3, 12, 100]
    assert torch.equal(bank.images, chw(made)[[1, 0, 2]])
    assert bank.manifest.model is None
    assert bank.manifest.source == f"{tmp_path} (numbered by name)"


def test_other_names_are_counted_in_natural_order(tmp_path):
    made = pictures(11, channels=1)
    for number, picture in enumerate(made):
        Image.fromarray(picture[..., 0]).save(tmp_path / f"sample_{number}.png")
    bank = Bank.from_folder(tmp_path)
    assert bank.seeds.tolist() == list(range(11))
    assert torch.equal(bank.images, chw(made))


def test_names_that_repeat_a_number_are_no_seeds(tmp_path):
    made = pictures(2)
    for folder, picture in zip("ab", made, strict=True):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "7.png")
    assert Bank.from_folder(tmp_path).seeds.tolist() == [0, 1]


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["channels last", "channels first"])
def test_npz_files_in_natural_order(tmp_path, axes):
    made = pictures(24)
    for part in range(12):
        rows = made[2 * part : 2 * part + 2].transpose(axes)
        np.savez(tmp_path / f"samples_{part}.npz", samples=rows, label=np.arange(2))
    bank = Bank.from_folder(tmp_path)
    assert bank.seeds.tolist() == list(range(24))
    assert torch.equal(bank.images, chw(made))
    assert torch.equal(Bank.from_folder(tmp_path / "samples_11.npz").images, chw(made)[-2:])


def write(folder, **arrays):
    np.savez(folder / "samples.npz", **arrays)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no image"),
        (lambda folder: (folder / "x.npz").write_bytes(b"PK\3\4 cut off"), "cannot be read as .npz"),
        (lambda folder: write(folder, a=np.full((2, 4, 4, 3), 7.5)), "holds floats from 7.5 to 7.5; give floats in"),
        (lambda folder: write(folder, a=np.full((2, 4, 4, 3), np.nan)), "holds floats from nan to nan"),
        (lambda folder: write(folder, a=np.zeros((2, 4, 4, 3), np.int64)), "holds a int64"),
        (lambda folder: write(folder, a=pictures(1), b=pictures(1)), "needs one array of images"),
        (lambda folder: write(folder, a=np.zeros((1, 40, 40, 17), np.uint8)), "at most 16 are read"),
        (lambda folder: write(folder, a=np.array([{}], dtype=object)), "holds a object"),
        (
            lambda folder: [np.savez(folder / f"{size}.npz", a=pictures(1, size)) for size in (4, 8)],
            "samples of one system have one shape",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Bank.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Bank.from_folder(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not exist"):
        Bank.from_folder(tmp_path / "nothing.npz")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    import repro.banks.foreign

    monkeypatch.setattr(repro.banks.foreign, "_MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "samples.npz", a=np.zeros((100, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="unpacks to"):
        Bank.from_folder(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_arrays_of_every_usual_form_hold_the_same_images(tmp_path, dtype, signed):
    made = pictures(6)
    values = made if dtype == np.uint8 else (made / 127.5 - 1 if signed else made / 255).astype(dtype)
    np.save(tmp_path / "samples.npy", values)
    bank = Bank.from_folder(tmp_path / "samples.npy")
    assert torch.equal(bank.images, chw(made))
    assert bank.manifest.source.endswith("(numbered by order)")
    assert torch.equal(as_images(values[..., 0], "mine"), chw(made)[:, :1])
    assert torch.equal(as_images(torch.from_numpy(values).permute(0, 3, 1, 2), "mine"), chw(made))
