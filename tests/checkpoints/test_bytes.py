"""The two parts of a checkpoint, and its bytes: what changed after it was written is noticed."""

from __future__ import annotations

import pytest
from trainings import trainer

from repro.checkpoints.loading import load_model, load_training
from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.errors import UserError
from repro.kernels import EDM
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.training.diffusion import Diffusion


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))
    trainer(folder, 2).fit(module, datamodule=Digits(batch_size=8))
    return folder / "checkpoints" / "last.ckpt"


def test_the_two_parts(run):
    """The model is rebuilt without the training, and the training with the same model."""
    record = read_checkpoint(run)["repro"]
    assert (record["format"], record["model"]["record"]["group"], record["training"]["images_seen"]) == (
        2, "models", 16,
    )  # fmt: skip
    model, module = load_model(run), load_training(run)
    assert not any("optimizer" in name or "trained" in name for name, _ in model.named_parameters())
    assert model.fingerprint() == module.model.fingerprint()
    assert module.images_seen == 16


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7])
def test_a_changed_byte_is_noticed(run, tmp_path, part):
    content = bytearray(run.read_bytes())
    start = content.index(b"/data/0") + int(part * 200)
    content[start + 200] ^= 0x10
    path = tmp_path / "changed.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"its bytes changed after it was written|it is damaged"):
        load_model(path)
    module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))
    with pytest.raises(UserError, match="cannot read checkpoint"):
        trainer(tmp_path / "again", 4).fit(module, datamodule=Digits(batch_size=8), ckpt_path=path)
