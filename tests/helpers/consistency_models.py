"""Small consistency models, and one with a closed form."""

from __future__ import annotations

import torch
from torch import nn

from repro.denoisers import GaussianDenoiser
from repro.kernels import EDM
from repro.networks.mlp import MLP
from repro.parameterizations import ConsistencyPreconditioning
from repro.testing.samplers import GaussianConsistency
from repro.training.consistency import ConsistencyDistillation, ConsistencyTraining

SHAPE = (1, 8, 8)


def small(**settings):
    torch.manual_seed(0)
    return MLP(8, 1, **({"width": 16, "depth": 1} | settings))


def distilled(teacher=None, **settings):
    teacher = teacher or GaussianDenoiser(EDM(), SHAPE, 0.2, 0.5)
    arguments = {"network": small(), "levels": 8, "lr": 1e-2, "ema_halflife": 200} | settings
    return ConsistencyDistillation(teacher, **arguments)


def trained_on_data(**settings):
    arguments = {"last_levels": 12, "schedule_steps": 10, "lr": 1e-2, "ema_halflife": 200} | settings
    return ConsistencyTraining(arguments.pop("network", None) or small(), **arguments)


class Closed(nn.Module):
    """The network with which a consistency function is that of Gaussian data, in closed form."""

    image_shape, num_classes = SHAPE, 0

    def __init__(self, mean=0.0, std=0.5):
        super().__init__()
        self.function = GaussianConsistency(EDM(), SHAPE, mean, std)
        self.meaning = ConsistencyPreconditioning()

    def forward(self, x, noise_level, labels=None):
        t = (noise_level.double() / 0.25).exp()
        t = t.to(x.dtype)
        skip, out = (scale[:, None, None, None] for scale in self.meaning.skip_and_out(t))
        x_t = x * (t[:, None, None, None] ** 2 + 0.25).sqrt()
        return (self.function.denoise(x_t, t) - skip * x_t) / out.where(out != 0, 1.0)
