"""Models draw on an accelerator, rehearsed without one: nothing is left on the host, which does not wait on the way."""

from __future__ import annotations

import pytest
import torch

from repro.denoisers import GaussianDenoiser
from repro.kernels import EDM, VP
from repro.models import DenoisingModel, Exact, GANModel, VAEModel
from repro.networks.mlp import MLP
from repro.noise import NoiseStream
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.samplers.stochastic import Ancestral
from repro.testing.devices import FakeDevice, Waits, WithoutWaiting

DRAWING = {
    "DenoisingModel": lambda: DenoisingModel(MLP(8, 1, 3, width=8, depth=1), EDM(), EDMPreconditioning(), Ancestral(3)),
    "Exact": lambda: Exact(GaussianDenoiser(VP(), (1, 8, 8)), Heun(3)),
    "GANModel": lambda: GANModel(8, 1, width=4, latent=8),
    "VAEModel": lambda: VAEModel(8, 1, hidden=8),
    "VAEModel with a VampPrior": lambda: VAEModel(8, 1, prior="vamp", hidden=8, components=5),
}


@pytest.mark.parametrize("name", DRAWING)
def test_drawing_on_an_accelerator_does_not_wait(name):
    with FakeDevice(), torch.no_grad():
        model = DRAWING[name]().eval().to("cuda")
        labels = torch.tensor([0, 2]) if model.num_classes else None
        with WithoutWaiting():
            images = model.generate(NoiseStream([3, 4]), labels)
    assert images.shape == (2, 1, 8, 8)
    # A formula of plain numbers has no device of its own.
    assert images.device.type == ("cpu" if name == "Exact" else "cuda")


def test_guided_drawing_does_not_wait_either():
    with FakeDevice(), torch.no_grad():
        network = MLP(8, 1, 3, width=8, depth=1, label_dropout=0.1).eval().to("cuda")
        with Waits() as waits:
            model = DenoisingModel(network, EDM(), EDMPreconditioning(), Heun(2))
            model.generate(NoiseStream([3]), torch.tensor([1]), guidance=2.0)
    assert not waits.counted
