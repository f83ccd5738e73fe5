"""A bank as training data, and the images that another set holds out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bank_files import write_bank

from repro.banks import Bank, BankImages
from repro.cli.main import main
from repro.data.digits import Digits
from repro.data.held_out import HeldOut
from repro.data.mixture import LowRankMixture
from repro.data.order import subset_order
from repro.errors import UserError
from repro.testing.data import check_data


def test_a_bank_gives_its_images_and_labels_in_the_order_of_the_set(tmp_path):
    images, labels = write_bank(tmp_path / "bank", 5, per_seed=3, classes=4, shard_size=2)
    data = BankImages(str(tmp_path / "bank"))
    order = torch.from_numpy(subset_order(0, 15).copy())
    assert torch.equal(data.images(), images[order])
    assert torch.equal(data.labels(), labels[order])
    assert (data.num_classes, data.class_names) == (4, ("0", "1", "2", "3"))


def test_a_conditional_bank_obeys_the_laws(tmp_path):
    write_bank(tmp_path / "bank", 5, per_seed=3, classes=4, shard_size=2)
    check_data(BankImages(str(tmp_path / "bank"), batch_size=6))


def test_a_bank_without_labels_has_no_classes(tmp_path):
    write_bank(tmp_path / "bank", 3)
    data = BankImages(str(tmp_path / "bank"))
    assert data.num_classes == 0
    assert data.labels().tolist() == [0, 0, 0]


def test_rows_of_a_bank_are_read_from_their_files_only(tmp_path, monkeypatch):
    images, _ = write_bank(tmp_path / "bank", 10, shard_size=4)
    read, load = [], np.load
    bank = Bank.open(tmp_path / "bank")
    monkeypatch.setattr(np, "load", lambda file, **options: read.append(file.name) or load(file, **options))
    assert torch.equal(bank.read([9, 0, 8, 1]), images[[9, 0, 8, 1]])
    assert read == ["images-00000000.npy", "images-00000002.npy"]
    assert torch.equal(Bank.from_images(images).read([3, 3]), images[[3, 3]])


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (None, "no sample bank at .*bank: it holds no manifest.json; draw one with repro predict"),
        (0, "bank .*bank holds no image yet; continue it with repro predict"),
        (2, "bank .*bank is unfinished: 8 of 10 images; give the repro predict command that drew it again"),
    ],
)
def test_a_bank_that_cannot_be_trained_on_is_one_line(shards, message, tmp_path, capsys):
    if shards is not None:
        write_bank(tmp_path / "bank", 10, shards=shards)
    with pytest.raises(UserError, match=message):
        BankImages(str(tmp_path / "bank")).prepare_data()
    words = ("--data", "BankImages", "--data.path", str(tmp_path / "bank"), "--output", str(tmp_path / "run"))
    assert main(["fit", "--config", "configs/digits/mlp_edm.yaml", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_held_out_images_are_those_that_the_other_set_leaves_out():
    first, second = Digits(subset=898, subset_seed=3), HeldOut(Digits(holdout=898, subset_seed=3))
    mine, theirs = ({image.numpy().tobytes() for image in data.images()} for data in (first, second))
    assert not mine & theirs
    everything = Digits(holdout=898, subset_seed=3)
    held, labels = everything.held_out()
    order = torch.from_numpy(subset_order(0, 898).copy())
    assert torch.equal(second.images(), held[order])
    assert torch.equal(second.labels(), labels[order])
    assert second.class_names == everything.class_names


def test_floats_that_are_held_out_stay_floats():
    data = HeldOut(LowRankMixture(samples=30, holdout=10))
    assert data.images().dtype == data.dtype == torch.float32


def test_nothing_held_out_is_one_line():
    with pytest.raises(UserError, match=r"Digits holds out no image; give for example --data\.of\.holdout 1000"):
        HeldOut(Digits())
