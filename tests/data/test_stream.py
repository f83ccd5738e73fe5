from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from image_files import encoded, pictures, write_folder
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from repro.data.archive import ImageArchive
from repro.data.digits import Digits
from repro.data.order import items_at
from repro.errors import UserError
from repro.testing.devices import FakeDevice, WithoutWaiting


class Witness(LightningModule):
    """Remembers every batch, counts images, and saves a checkpoint at a given moment."""

    def __init__(self, save_in_validation_at=None, path=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.batches, self.validated, self.save_at, self.path = [], [], save_in_validation_at, path

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.batches.append((int(self.images_seen), batch_idx, images.clone(), labels.clone()))
        self.images_seen += len(images)
        return self.weight * images.float().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(int(self.images_seen))
        if batch_idx == 0 and int(self.images_seen) == self.save_at:
            self.trainer.save_checkpoint(self.path)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def _same(one, other):
    return len(one) == len(other) and all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) and torch.equal(a[3], b[3]) for a, b in zip(one, other, strict=True)
    )


def _fit(data, module=None, ckpt_path=None, callbacks=(), **trainer):
    module = module or Witness()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for foreign in (
            "srun. command is available",
            "callbacks used to create",
            "exists and is not empty",
            "enable_checkpointing",
        ):
            warnings.filterwarnings("ignore", f".*{foreign}.*")
        built = Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=list(callbacks),
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **trainer,
        )
        built.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module, built


def _data(**changes):
    return Digits(**{"subset": 50, "batch_size": 24, "horizontal_flip": True} | changes)


def test_a_run_consumes_the_stream_from_its_beginning_to_max_steps():
    data = _data(horizontal_flip=False)
    module, trainer = _fit(data, max_steps=7)
    assert trainer.num_training_batches == 7
    assert [batch[0] for batch in module.batches] == [24 * k for k in range(7)]
    seen = torch.cat([batch[2] for batch in module.batches])
    assert torch.equal(seen, data.images()[torch.from_numpy(items_at(0, 50, 0, 7 * 24))])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_saw(accumulate, workers, tmp_path):
    settings = {"max_steps": 10, "accumulate_grad_batches": accumulate}
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    whole, trainer = _fit(_data(workers=workers), callbacks=[keep], **settings)
    assert len(whole.batches) == trainer.num_training_batches == 10 * accumulate
    for step in (4, 8):
        rest, trainer = _fit(_data(workers=workers), ckpt_path=tmp_path / f"step={step}.ckpt", **settings)
        assert _same(rest.batches, whole.batches[step * accumulate :])
        assert trainer.global_step == 10
        assert trainer.num_training_batches == 10 * accumulate


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_finished_run_goes_on_to_twice_its_steps(accumulate, tmp_path):
    whole, _ = _fit(_data(), max_steps=10, accumulate_grad_batches=accumulate)
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=5)
    first, trainer = _fit(_data(), max_steps=5, accumulate_grad_batches=accumulate, callbacks=[keep])
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("last", "after"):
        path = tmp_path / f"{name}.ckpt"
        second, _ = _fit(_data(), max_steps=10, accumulate_grad_batches=accumulate, ckpt_path=path)
        assert _same(first.batches + second.batches, whole.batches)
    nothing, _ = _fit(_data(), max_steps=5, accumulate_grad_batches=accumulate, ckpt_path=tmp_path / "last.ckpt")
    assert nothing.batches == []


def test_resume_from_a_checkpoint_saved_inside_validation(tmp_path):
    path = tmp_path / "inside.ckpt"
    settings = {"max_steps": 20, "val_check_interval": 6, "check_val_every_n_epoch": None}
    whole, _ = _fit(_data(holdout=30), Witness(12 * 24, path), **settings)
    rest, _ = _fit(_data(holdout=30), ckpt_path=path, **settings)
    assert _same(rest.batches, whole.batches[12:])
    assert whole.validated[2:] == [6 * 24] * 2 + [12 * 24] * 2 + [18 * 24] * 2


def test_epochs_without_max_steps_are_passes_that_go_on_where_the_last_ended(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    whole, _ = _fit(_data(), max_epochs=4, callbacks=[keep])
    assert [batch[0] for batch in whole.batches] == [24 * k for k in range(12)]
    rest, _ = _fit(_data(), max_epochs=4, ckpt_path=tmp_path / "step=8.ckpt")
    assert [batch[0] for batch in rest.batches] == [24 * k for k in range(8, 12)]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(rest.batches, whole.batches[8:], strict=True))


def test_resuming_on_other_data_names_what_differs(tmp_path):
    _fit(
        _data(),
        max_steps=4,
        callbacks=[ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)],
    )
    with pytest.raises(
        UserError,
        match=r"cannot resume: .*\(images was 50, is now 40; batch_size was 24, is now 20; seed was 0, is now 7\)",
    ):
        _fit(_data(subset=40, batch_size=20, seed=7), max_steps=4, ckpt_path=tmp_path / "step=2.ckpt")


def test_without_held_out_images_validation_is_left_out_silently():
    module, trainer = _fit(_data(), max_steps=2)
    assert module.validated == []
    assert trainer.limit_val_batches == 1.0
    with pytest.raises(
        UserError, match=r"no images are held out to validate on; give for example --data\.holdout 1000"
    ):
        Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).validate(Witness(), datamodule=_data())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_turns_bad_during_training_is_told_in_one_line(workers, tmp_path):
    folder = write_folder(tmp_path, {f"{i}.png": encoded(image) for i, image in enumerate(pictures(12))})
    data = ImageArchive(str(folder), batch_size=4, in_memory=False, workers=workers)
    data.prepare_data()
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"image '3.png' cannot be decoded: .*truncated") as told:
        _fit(data, max_steps=6)
    assert "\n" not in str(told.value)


def test_batches_for_a_gpu_do_not_make_the_host_wait(monkeypatch):
    """In pinned memory, as Lightning then copies them; without it the law of devices notices."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: True)
    data = Digits(batch_size=8, holdout=8)
    with FakeDevice(), WithoutWaiting():
        batches = [*data.stream(length=2, pin_memory=True), *data.held_out_batches(pin_memory=True)]
        assert len(batches) == 3
        for batch in batches:
            images, labels = move_data_to_device(batch, torch.device("cuda"))
            assert (images.device.type, labels.device.type) == ("cuda", "cuda")
        for plain in (data.stream(length=1), data.held_out_batches()):
            with pytest.raises(AssertionError, match="pageable memory"):
                move_data_to_device(next(iter(plain)), torch.device("cuda"))


def test_only_a_gpu_has_its_batches_pinned():
    for device, pinned in (("cpu", False), ("cuda", True)):
        data = Digits(batch_size=8, holdout=8)
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(
            max_steps=3, accumulate_grad_batches=1, strategy=strategy, global_rank=0, world_size=1
        )
        assert data.train_dataloader().pin_memory is pinned
        assert data.val_dataloader().pin_memory is pinned
