"""A plain ``lightning.Trainer`` trains every training mode on a plain loader."""

from __future__ import annotations

import pytest
import torch
from modes import MODES, images, network, plain

from repro import registry
from repro.checkpoints.loading import load_model, load_training
from repro.errors import UserError
from repro.kernels import EDM
from repro.models import Model
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.training import Diffusion


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    plain(folder, Diffusion(network(), EDM(), EDMPreconditioning(), Heun(2)), images())
    return str(folder / "plain.ckpt")


@pytest.mark.parametrize("name", [each for each in registry.names("modules") if each in MODES])
def test_a_plain_trainer_trains_it_and_its_checkpoint_is_whole(name, start, tmp_path):
    module = registry.build("modules", name, **MODES[name](start))
    before = [each.clone() for each in module.trained.parameters() if each.requires_grad]
    plain(tmp_path, module, images())
    assert module.images_seen == 16
    moved = [each for each in module.trained.parameters() if each.requires_grad]
    assert any(not torch.equal(old, new) for old, new in zip(before, moved, strict=True))
    model, again = load_model(tmp_path / "plain.ckpt"), load_training(tmp_path / "plain.ckpt")
    assert model.fingerprint() == module.model.fingerprint()
    assert again.images_seen == 16
    if isinstance(model, Model):
        assert torch.equal(model.sample([3, 4]), module.model.sample([3, 4]))
    above = [cls for cls in type(module).__mro__[1:] if cls.__module__.startswith("repro.training")]
    assert len(above) <= 3


def test_every_mode_is_tried():
    own = {each.name for each in registry.entries("modules") if each.target.startswith("repro.")}
    assert own <= set(MODES)


def test_float_images_of_another_range_are_refused_or_told(tmp_path):
    module = Diffusion(network(), EDM(), EDMPreconditioning(), Heun(2))
    with pytest.raises(UserError, match=r"training images are floats from .* to 255; give uint8"):
        plain(tmp_path, module, images().float())
    with pytest.warns(UserWarning, match=r"as if in \[0, 1\]"):
        plain(tmp_path, Diffusion(network(), EDM(), EDMPreconditioning(), Heun(2)), images() / 255)
