"""Images in NumPy files: any size, 1 to 16 channels, nothing executed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import pictures

from repro.data import ImageArray
from repro.data.arrays import channels_first
from repro.errors import UserError


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_any_number_of_channels_comes_back_to_the_byte(channels, order, suffix, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, channels, 8, 12), dtype=np.uint8)
    stored = images if order == "first" else images.transpose(0, 2, 3, 1)
    path = str(tmp_path / f"set{suffix}")
    np.save(path, stored) if suffix == ".npy" else np.savez(path, whatever=stored)
    data = ImageArray(path, channels=order)
    assert (data.image_shape, data.num_classes) == ((channels, 8, 12), 0)
    assert torch.equal(
        torch.cat([data.images()]).flatten(1).sort(0).values, torch.from_numpy(images).flatten(1).sort(0).values
    )
    lazy = ImageArray(path, channels=order, in_memory=False)
    assert lazy.fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((8, 12, 1), (1, 8, 12)),
        ((1, 8, 12), (1, 8, 12)),
        ((8, 12, 3), (3, 8, 12)),
        ((5, 16, 16), (5, 16, 16)),
        ((16, 16, 5), (5, 16, 16)),
        ((32, 20, 5), (5, 32, 20)),
        ((5, 32, 20), (5, 32, 20)),
        ((5, 5, 16), (16, 5, 5)),
        ((5, 8, 12), None),
        ((16, 16, 16), None),
        ((20, 24, 28), None),
    ],
)
def test_the_axis_of_channels_is_told_by_its_length_or_asked_for(shape, found):
    images = np.zeros((2, *shape), np.uint8)
    if found is not None:
        assert channels_first(images, "x.npy").shape == (2, *found)
    else:
        with pytest.raises(UserError, match=r"either end may be the channels; give --data.channels first or last"):
            channels_first(images, "x.npy")


def test_labels_are_read_or_left(tmp_path):
    path = str(tmp_path / "set.npz")
    np.savez(path, x=pictures(6, channels=5), y=np.array([0, 2, 2, 0, 1, 0], np.uint8))
    data = ImageArray(path)
    assert data.class_names == ("0", "1", "2")
    assert sorted(data.labels().tolist()) == [0, 0, 0, 1, 2, 2]
    assert ImageArray(path, labelled=False).num_classes == 0
    np.savez(path, x=pictures(6, channels=5), y=np.array([0, 2, 2, 0, -1, 0]))
    with pytest.raises(UserError, match="has the label -1; labels are 0, 1, 2"):
        ImageArray(path).images()


def _header_without_end():
    """An old .npy header whose text ends inside a bracket, over which NumPy's own reader stumbles."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, ".ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: np.save(path, np.zeros((2, 4, 4, 3))), r"holds array float64 \(2, 4, 4, 3\); it needs one uint8"),
        (lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True), "Python objects in dtype"),
        (lambda path: np.save(path, np.zeros((0, 4, 4, 3), np.uint8)), "needs one uint8 array"),
        (lambda path: path.write_bytes(b"\x93NUMPY\1\0"), "cannot be read as .npy or .npz"),
        (lambda path: path.write_bytes(_header_without_end()), "cannot be read as .npy or .npz"),
        (lambda path: path.write_bytes(b"PK\3\4"), "cannot be read as .npy or .npz"),
        (lambda path: path.write_bytes(b""), "cannot be read as .npy or .npz"),
        (lambda path: np.save(path, np.zeros((2, 40, 17, 17), np.uint8)), "at most 16 are read"),
    ],
)
def test_mistakes_are_one_line(make, message, tmp_path):
    path = tmp_path / "set.npy"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        ImageArray(str(path)).images()
    assert "\n" not in str(caught.value)


def test_scaling_takes_every_channel_and_grey_only_pictures(tmp_path):
    path = str(tmp_path / "set.npy")
    images = pictures(3, 8, 8, channels=5)
    np.save(path, images)
    halved = ImageArray(path, resize=4).images()
    means = images[0].reshape(4, 2, 4, 2, 5).astype(float).mean((1, 3)).transpose(2, 0, 1)
    assert any(np.array_equal(image.numpy(), np.floor(means + 0.5)) for image in halved)
    with pytest.raises(UserError, match="images of 5 channels cannot be turned grey"):
        ImageArray(path, grayscale=True).images()
