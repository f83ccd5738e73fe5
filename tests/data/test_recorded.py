"""A record in a file that somebody sent reads nothing that the user did not name."""

from __future__ import annotations

import pytest
import torch
from image_files import encoded, pictures, write_folder
from lightning.pytorch import LightningModule, Trainer

from repro.banks import Bank
from repro.data import CIFAR10, Digits, HeldOut, ImageArchive, LowRankMixture
from repro.data.recorded import recorded_data
from repro.errors import UserError
from repro.records import record_of


class _OneStep(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, _):
        return (self.weight * batch[0].float()).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _train_on(data):
    Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(_OneStep(), datamodule=data)


def _folder(path):
    return write_folder(path, {f"{i}.png": encoded(image) for i, image in enumerate(pictures(6))})


@pytest.mark.parametrize("data", [Digits(subset=9), LowRankMixture(subset=9), HeldOut(Digits(holdout=9))])
def test_data_that_need_no_file_are_built(data):
    assert recorded_data(record_of(data), "it").fingerprint() == data.fingerprint()


def test_a_folder_is_read_only_after_a_training_on_it(tmp_path, monkeypatch):
    path = _folder(tmp_path / "photos")
    record = record_of(ImageArchive(str(path), subset=4))
    bank = Bank.from_images(torch.zeros(2, 3, 6, 6, dtype=torch.uint8), data=record)
    opened = []
    monkeypatch.setattr(ImageArchive, "open_source", lambda self: opened.append(self))
    with pytest.raises(UserError, match=r"names images outside of it .* --train ImageArchive --train\.path .*photos"):
        bank.training_images()
    assert opened == []
    monkeypatch.undo()
    _train_on(ImageArchive(str(path), batch_size=2))
    assert torch.equal(bank.training_images(), ImageArchive(str(path), subset=4).images())
    held_out = HeldOut(ImageArchive(str(path), holdout=2))
    assert recorded_data(record_of(held_out), "it").fingerprint() == held_out.fingerprint()
    others = str(_folder(tmp_path / "others"))
    for other in (ImageArchive(others), HeldOut(ImageArchive(others, holdout=2))):
        with pytest.raises(UserError, match="names images outside of it"):
            recorded_data(record_of(other), "it")


def test_a_training_on_held_out_images_names_the_set_that_they_are_of(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    whole = ImageArchive(str(_folder(tmp_path / "photos")), holdout=4)
    with pytest.raises(UserError, match="names images outside of it"):
        recorded_data(record_of(whole), "it")
    _train_on(HeldOut(whole, batch_size=2))
    assert recorded_data(record_of(whole), "it").fingerprint() == whole.fingerprint()


def test_nothing_is_downloaded_and_no_folder_is_made_for_a_record(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    for root in (None, str(tmp_path / "chosen" / "by" / "stranger")):
        record = record_of(CIFAR10(root))
        with pytest.raises(UserError, match=r"may not be fetched|names images outside of it"):
            recorded_data(record, "it").images()
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_something_else_is_refused():
    for record in (None, "text", {"group": "kernels", "name": "VP", "args": {}}):
        with pytest.raises(UserError, match="it names no data set"):
            recorded_data(record, "it")


def test_images_that_changed_since_the_training_are_told():
    data = Digits(subset=9)
    bank = Bank.from_images(data.images(), data=record_of(data), data_fingerprint=data.fingerprint())
    assert torch.equal(bank.training_images(), data.images())
    changed = Bank.from_images(data.images(), data=record_of(data), data_fingerprint="0" * 64)
    with pytest.raises(UserError, match="are not those that the model was trained on any more"):
        changed.training_images()


def test_what_a_model_was_shown_includes_mirrored_copies():
    data = Digits(subset=9, horizontal_flip=True)
    images, labels = data.shown()
    assert torch.equal(images, torch.cat([data.images(), data.images().flip(-1)]))
    assert torch.equal(labels, data.labels().repeat(2))
    assert torch.equal(Bank.from_images(images, data=record_of(data)).training_images(), images)
    seen = {image.numpy().tobytes() for first in range(0, 900, 30) for image in data.stream().batches[first][0]}
    assert seen == {image.numpy().tobytes() for image in images}
