"""Discrete-time DDPM: its steps, its loss, and a run that trains and samples."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from repro.checkpoints.loading import load_model
from repro.data.digits import Digits
from repro.images import to_float, to_uint8
from repro.kernels import DiscreteVP
from repro.metrics.functional import reproducibility_score
from repro.networks.mlp import MLP
from repro.noise import NoiseStream
from repro.parameterizations import Eps
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.heun import Heun
from repro.times import DiscreteTimes
from repro.training.diffusion import Diffusion
from repro.training.trainer import Trainer


def ddpm(**settings):
    parameterization = Eps(condition_scale=1000.0, condition_shift=-1.0)
    network = MLP(8, 1, width=64, depth=1)
    sampler = DPMSolver(steps=20, order=3, spacing="log_snr")
    return Diffusion(network, DiscreteVP(), parameterization, sampler, times=DiscreteTimes(), **settings)


def asked(network):
    """A list that fills with the noise levels that a network is asked about."""
    levels = []
    network.register_forward_pre_hook(lambda _, given: levels.append(given[1].detach().clone()))
    return levels


def test_the_loss_is_that_of_ddpm_at_its_integer_steps():
    """Mean square of the noise's error at x = sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps, the network told i (eq. 14)."""
    model = ddpm()
    for parameter in model.trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x_0, eps, steps = torch.randn(5, 1, 8, 8), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 333, 500, 999])
    abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[steps][:, None, None, None]
    noisy = (abar.sqrt() * x_0 + (1 - abar).sqrt() * eps).float()
    right = (model.trained.network(noisy, steps.float()) - eps).square().flatten(1).mean(1)
    levels = asked(model.trained.network)
    found = model.loss_at(model.trained, x_0, eps, (steps + 1) / 1000)
    torch.testing.assert_close(levels[0], steps.float(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


def test_every_step_is_as_likely_as_the_others():
    u = (torch.arange(10_000) + 0.5) / 10_000
    steps = DiscreteTimes().of_uniform(u.double(), DiscreteVP()) * 1000 - 1
    assert torch.equal(steps.round().long().bincount(), torch.full((1000,), 10))
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)


class Losses(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.seen.append(outputs["loss"].item())


def test_it_trains_and_samples(tmp_path):
    model, losses = ddpm(lr=3e-3, ema_halflife=2000), Losses()
    levels = asked(model.trained.network)
    settings = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    run = Trainer(max_steps=200, default_root_dir=tmp_path, callbacks=[losses], **settings)
    run.fit(model, datamodule=Digits(batch_size=64))
    steps = torch.cat(levels)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert 0 <= steps.round().min() < 10
    assert 990 <= steps.round().max() <= 999
    assert np.mean(losses.seen[-20:]) < 0.5 * np.mean(losses.seen[:5])
    loaded = load_model(tmp_path)
    levels = asked(loaded.denoiser.network)
    images = loaded.sample(range(200))
    assert len(levels) == 20
    assert all(level.min() >= 0 and level.max() <= 999 for level in levels)
    exact = Heun(100).sample(loaded.denoiser, NoiseStream(range(200)))
    assert reproducibility_score(images, to_uint8(exact), 0.95) > 0.9
    means = torch.stack([to_float(each).mean(0).flatten() for each in (Digits().images(), images)])
    assert torch.corrcoef(means)[0, 1] > 0.7
