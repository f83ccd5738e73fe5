"""A small autoencoder of the digits in the layout of diffusers, and the latents of the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from repro.files import write_whole
from repro.images import to_float, to_uint8
from repro.models.pretrained import check_extra
from repro.registry import build

__all__ = ["train_autoencoder"]

_BATCH, _LR, _KL = 64, 3e-3, 1e-5


def train_autoencoder(folder: Path, steps: int) -> dict[str, Any]:
    """Trains an ``AutoencoderKL`` on the 8 x 8 digits and encodes all of them.

    Its latents are 4 x 4 x 4. Its ``scaling_factor`` takes them into [-1, 1], so that they are kept as bytes like
    images: ``latents.npz`` has the labels too and is read by the data plug-in ``ImageArray``.

    Args:
        folder: What is written: ``autoencoder``, as diffusers saves it, and ``latents.npz``.
        steps: Batches of 64.

    Returns:
        ``autoencoder`` and ``latents``, paths; ``error``, the mean absolute difference of digits that went through
        latents of 8 bits and back, of 255.

    Raises:
        UserError: the extra ``diffusers`` is not installed.
    """
    check_extra("an autoencoder of digits")
    from diffusers import AutoencoderKL

    data = build("data", "Digits")
    digits, labels = data.shown()
    images = to_float(digits)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[16, 32],
            norm_num_groups=8,
            latent_channels=4,
            sample_size=8,
            mid_block_add_attention=False,
        )
        optimizer = torch.optim.Adam(autoencoder.parameters(), _LR)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
        for _ in range(steps):
            batch = images[torch.randint(len(images), (_BATCH,))]
            posterior = autoencoder.encode(batch).latent_dist
            loss = functional.mse_loss(autoencoder.decode(posterior.sample()).sample, batch)
            optimizer.zero_grad()
            (loss + _KL * posterior.kl().mean()).backward()
            optimizer.step()
            schedule.step()
    autoencoder.eval().requires_grad_(False)
    latents = torch.cat([autoencoder.encode(part).latent_dist.mean for part in images.split(256)])
    factor = 1 / float(latents.abs().max())
    autoencoder.register_to_config(scaling_factor=factor)
    autoencoder.save_pretrained(folder / "autoencoder")
    kept = to_uint8(latents * factor)
    with write_whole(folder / "latents.npz") as file:
        np.savez(file, images=kept.numpy(), labels=labels.numpy())
    back = to_uint8(torch.cat([autoencoder.decode(part / factor).sample for part in to_float(kept).split(256)]))
    error = float((back.float() - digits).abs().mean())
    return {"autoencoder": str(folder / "autoencoder"), "latents": str(folder / "latents.npz"), "error": error}
