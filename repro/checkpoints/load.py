"""``repro.load``: any model from a file."""

from __future__ import annotations

import os
from typing import Any, Literal

from repro.checkpoints.loading import load_module
from repro.models.base import RecordedModule
from repro.models.decoded import Decoded

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    weights: Literal["ema", "raw"] = "ema",
    format: str = "auto",
    decoder: str | None = None,
    **options: Any,
) -> RecordedModule:
    """Rebuilds a model from its checkpoint alone, or reads an author-released one; in evaluation mode.

    Args:
        path: A checkpoint, a run's folder (its newest checkpoint), or a file of another project.
        weights: Sample with the averaged weights (``ema``) or those of the last step (``raw``).
        format: Format of a file of another project (``repro plugins checkpoints``), or ``auto``.
        decoder: For a model of latents, what makes images of them: see :class:`~repro.models.decoded.Decoded`.
        **options: What a file of another project does not say; arguments of its format's class.

    Raises:
        UserError: as :func:`repro.checkpoints.loading.load_module`; a decoder that cannot be read or is for other
            latents.

    Example:
        >>> model = load("edm-cifar10-32x32-uncond-vp.pkl")  # doctest: +SKIP
    """
    module = load_module(path, weights, format, **options)
    return module if decoder is None else Decoded(module, decoder).eval().requires_grad_(False)
