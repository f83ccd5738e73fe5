"""Models from their checkpoints alone: this project's own, and those of others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from repro.checkpoints.native import read_checkpoint
from repro.checkpoints.weights import load_weights
from repro.errors import UserError
from repro.models.base import RecordedModule
from repro.registry import rebuild
from repro.released.addresses import local_path
from repro.released.importing import import_file

__all__ = ["load_module"]


def load_module(
    path: str | os.PathLike[str], weights: Literal["ema", "raw"] = "ema", format: str = "auto", **options: Any
) -> RecordedModule:
    """Rebuilds a model from its checkpoint alone, or reads an author-released one; in evaluation mode.

    Args:
        path: A checkpoint, a run's folder (its newest checkpoint), or a file of another project.
        weights: Sample with the averaged weights (``ema``) or those of the last step (``raw``).
        format: Format of a file of another project (``repro plugins checkpoints``), or ``auto``.
        **options: What such a file does not say; see :func:`repro.released.importing.import_file`.

    Raises:
        UserError: as :func:`~repro.checkpoints.native.read_checkpoint`; a record that cannot be rebuilt here; weights
            that do not fit; a file of no known format.
    """
    if weights not in ("ema", "raw"):
        raise UserError(f"weights is {weights!r}; it is 'ema' or 'raw'")
    path, checkpoint, refusal = local_path(path), None, None
    if format == "auto" and not options:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if not Path(path).is_file():
                raise
            refusal = error
    own = checkpoint is not None
    module = _rebuilt(checkpoint, path) if own else _imported(path, format, options, refusal)
    if weights == "raw":
        module.use_raw_weights()
    module.origin = f"{module.origin} ({weights})"
    return module.eval().requires_grad_(False)


def _rebuilt(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> RecordedModule:
    """The model of a checkpoint of this project."""
    record = checkpoint["repro"]
    module = rebuild(record["model"])
    load_weights(module, checkpoint["state_dict"], f"checkpoint {path}")
    module.on_load_checkpoint(checkpoint)
    module.origin = str(Path(path).resolve())
    if "imported" in record:
        module.origin += f", imported from {record['imported']['path']} (sha256 {record['imported']['sha256']})"
    return module


def _imported(
    path: str | os.PathLike[str], format: str, options: Mapping[str, Any], refusal: UserError | None
) -> RecordedModule:
    """The model of a file of another project; what has our suffix is told of as a checkpoint of ours."""
    try:
        imported = import_file(path, format, **options)
    except UserError:
        if refusal is not None and Path(path).suffix == ".ckpt":
            raise refusal from None
        raise
    imported.tell()
    return imported.module
