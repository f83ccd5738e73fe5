"""A small training of every mode under a plain ``lightning.Trainer``."""

from __future__ import annotations

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from repro.denoisers import GaussianDenoiser
from repro.kernels import EDM, VP
from repro.networks.mlp import MLP
from repro.parameterizations import X0, EDMPreconditioning
from repro.samplers.heun import Heun


def network():
    return MLP(8, 1, width=8, depth=1)


def plain(folder, module, images, steps=2):
    data = DataLoader(TensorDataset(images, torch.zeros(len(images), dtype=torch.int64)), batch_size=8)
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "plain.ckpt")
    return trainer


def images():
    return torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


MODES = {
    "Diffusion": lambda start: {
        "network": network(), "kernel": EDM(), "parameterization": EDMPreconditioning(), "sampler": Heun(2)
    },
    "FineTuning": lambda start: {"start": start, "parameters": "all"},
    "ProgressiveDistillation": lambda start: {
        "teacher": GaussianDenoiser(VP(), (1, 8, 8)), "network": network(), "parameterization": X0(),
        "start_steps": 2, "end_steps": 1, "stage_images": 8,
    },
    "ConsistencyDistillation": lambda start: {"teacher": start, "levels": 4},
    "ConsistencyTraining": lambda start: {"network": network()},
    "GAN": lambda start: {"image_size": 8, "channels": 1, "width": 4, "latent": 8},
    "VAE": lambda start: {"image_size": 8, "channels": 1, "hidden": 8},
    "CopyDetection": lambda start: {
        "image_size": 8, "channels": 1, "widths": (8,) * 4, "depths": (1,) * 4, "block": "basic", "stem_width": 8,
        "dims": 8,
    },
}  # fmt: skip
