"""Encoding: the noises that images are drawn from."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from repro.checkpoints.loading import load_model
from repro.data.progress import slow_progress
from repro.errors import UserError
from repro.images import to_float
from repro.models.base import Model, Recorded
from repro.samplers.base import Sampler

__all__ = ["encode"]


def encode(
    model: Model | str | os.PathLike[str],
    images: Tensor,
    labels: Tensor | None = None,
    sampler: Sampler | None = None,
    guidance: float = 1.0,
    batch_size: int = 250,
) -> Tensor:
    """Finds the noises, float32 (n, C, H, W) on the CPU, that images are drawn from: :func:`repro.draw` backwards.

    Args:
        model: A model, or the path of a checkpoint, a run or a file of another project.
        images: uint8, or floats in [-1, 1], shape (n, C, H, W).
        labels: Class numbers, int64 (n,), for a conditional model.
        sampler: Walks back in place of the model's own: Euler, Heun, RK45, or DPMSolver as singlestep of order 1 or 2.
        guidance: Scale of classifier-free guidance; 1 is none.
        batch_size: Images at a time.

    Raises:
        UserError: a model that draws nothing or in one pass, a sampler that cannot run backwards, labels that are
            missing or do not fit, images of another shape, or noises that are not finite.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import VP
        >>> from repro.models import Exact
        >>> from repro.samplers import Heun
        >>> encode(Exact(GaussianDenoiser(VP()), Heun(steps=9)), torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """
    read = model if isinstance(model, Recorded) else load_model(model)
    if not isinstance(read, Model):
        raise UserError(f"a {type(read).__name__} draws no images, so it has no noises for them")
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(read.image_shape):
        raise UserError(f"images are {tuple(images.shape[1:])}, the model's are {tuple(read.image_shape)}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise UserError(f"{len(labels)} labels for {len(images)} images; give one label an image")
    if images.is_floating_point() and not bool((images.abs() <= 1).all()):
        raise UserError("float images must lie in [-1, 1]; give uint8 images, or 2 * x - 1 for images in [0, 1]")
    parts = []
    with slow_progress("encoding", len(images)) as done:
        for start in range(0, len(images), batch_size):
            chosen = slice(start, start + batch_size)
            classes = None if labels is None else labels[chosen].to(read.device)
            noises = read.encode(to_float(images[chosen]).to(read.device), classes, sampler, guidance)
            parts.append(noises.float().cpu())
            done(min(start + batch_size, len(images)))
    encoded = torch.cat(parts)
    if not bool(encoded.isfinite().all()):
        wrong = (~encoded.isfinite().flatten(1).all(1)).nonzero().flatten()[:5].tolist()
        raise UserError(f"the noises of images {wrong} are not finite; the model or the sampler is broken")
    return encoded
