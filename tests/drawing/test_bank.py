"""Drawing into banks: no model is changed, every bank has a place of its own, only what is finite is kept."""

from __future__ import annotations

import shutil

import pytest
import torch
from trainings import trainer

import repro
from repro.banks import Bank
from repro.data.digits import Digits
from repro.drawing import Drawing, draw
from repro.errors import UserError
from repro.kernels import EDM
from repro.models import DenoisingModel
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.training.callbacks import RunCheckpoint
from repro.training.diffusion import Diffusion


def model(seed=0, **options):
    torch.manual_seed(seed)
    network = MLP(8, 1, width=8, depth=1, **options)
    torch.nn.init.normal_(network.outer.weight, std=0.1)
    return DenoisingModel(network, EDM(), EDMPreconditioning(), Heun(steps=3))


def test_a_drawing_changes_no_model_and_two_do_not_disturb_each_other():
    one = model(num_classes=3, label_dropout=0.1)
    before = one.fingerprint()
    plain = Drawing(model=one, seeds="0-3")
    other = Drawing(model=one, seeds="0-3", sampler=Euler(5), guidance=2.0, classes="1,2")
    first = plain.images([0, 1])[0]
    images, labels = other.images([0, 1])
    assert (images.shape, labels.tolist()) == ((4, 1, 8, 8), [1, 2, 1, 2])
    assert torch.equal(plain.images([0, 1])[0], first)
    assert one.fingerprint() == before
    assert (plain.label, other.label) == ("conditional_0-3", "conditional-guidance2-classes1-2_0-3")
    assert torch.equal(images, one.sample([0, 0, 1, 1], labels, Euler(5), 2.0))


def test_a_bank_in_memory_is_the_bank_on_the_disk(tmp_path):
    here, there = draw(model(), "0-6", shard_size=3), draw(model(), "0-6", output=tmp_path / "bank", shard_size=3)
    assert torch.equal(here.images, there.images)
    assert here.manifest.differences(there.manifest) == []
    (tmp_path / "bank" / "images-00000001.npy").unlink()
    assert torch.equal(draw(model(), "0-6", output=tmp_path / "bank").images, here.images)


def test_two_checkpoints_of_a_run_get_banks_of_their_own(tmp_path):
    module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2), lr=0.1)
    run = trainer(tmp_path, 4, callbacks=[RunCheckpoint(every_n_steps=2, keep=True)])
    run.fit(module, datamodule=Digits(batch_size=8))
    files = [tmp_path / "checkpoints" / name for name in ("step=2.ckpt", "step=4.ckpt")]
    banks = [draw(file, "0-4") for file in files]
    assert banks[0].path.name == "unconditional_0-4"
    assert banks[1].path.name.startswith("unconditional_0-4-")
    assert not torch.equal(banks[0].images, banks[1].images)
    assert [draw(file, "0-4").path for file in files] == [bank.path for bank in banks]
    assert torch.equal(banks[1].images, repro.load(files[1]).sample(range(5)))


def test_images_that_are_not_finite_are_named_and_not_written(tmp_path):
    broken = model()
    with torch.no_grad():
        broken.denoiser.network.outer.bias[0] = torch.nan
    with pytest.raises(UserError, match=r"5 of 5 images are NaN or infinite \(seeds 0, 1, 2, \.\.\.\).*outer\.bias"):
        draw(broken, "0-4", output=tmp_path / "bank")
    assert not list((tmp_path / "bank").glob("images*"))
    with pytest.raises(UserError, match="holds no image yet"):
        Bank.open(tmp_path / "bank")
    shutil.rmtree(tmp_path / "bank")


def test_what_cannot_be_drawn_is_told_before_anything_is_drawn():
    for settings, message in (
        ({"task": "conditional"}, "trained without labels"),
        ({"guidance": 2.0}, "guidance is 2"),
        ({"classes": "0"}, "draws none"),
        ({"seeds": "4-2"}, "seed range"),
        ({"task": "uncondtional"}, "did you mean 'unconditional'"),
    ):
        with pytest.raises(UserError, match=message):
            Drawing(model=model(), **({"seeds": "0-3"} | settings))
