"""This project's own checkpoints: tensors and plain records, read without executing, rebuilt without a config."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from repro.errors import UserError, nearest
from repro.files import write_whole
from repro.modules.base import FORMAT, RecordedModule
from repro.registry import rebuild

__all__ = ["AtomicCheckpointIO", "load_module", "load_weights", "read_checkpoint"]

_DAMAGE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    MemoryError, OSError, zipfile.BadZipFile,
)  # fmt: skip


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all: written aside, flushed to the disk, then renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint; a process killed meanwhile leaves the old file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            torch.save(checkpoint, file)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint of this project, on the CPU, read with ``weights_only=True``.

    Raises:
        UserError: no such file, damaged or cut off, or a file of another format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        siblings = [str(file) for file in path.parent.glob("*") if file.is_file()] if path.parent.is_dir() else []
        near = nearest(str(path), siblings)
        raise UserError(f"no checkpoint at {path}{f'; did you mean {near}?' if near else ''}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"cannot read checkpoint {path}: it is cut off, or no checkpoint of repro")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _DAMAGE as error:
        reason = " ".join(str(error).split()).split(".")[0][:100]
        raise UserError(f"cannot read checkpoint {path}: damaged or of another format ({reason})") from error
    record = checkpoint.get("repro") if isinstance(checkpoint, Mapping) else None
    if not isinstance(record, Mapping) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of repro: it holds no model record")
    if record.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} has format {record.get('format')!r}; this version reads format {FORMAT}")
    return checkpoint


def load_weights(module: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads a state dict strictly.

    Raises:
        UserError: a missing, unexpected or differently shaped tensor, naming the first one.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if shapes:
        key = shapes[0]
        raise UserError(
            f"{source} does not fit the model: {key} is {tuple(state[key].shape)} there and "
            f"{tuple(own[key].shape)} here ({len(shapes)} tensors differ in shape)"
        )
    if missing or extra:
        kind, key = ("lacks", missing[0]) if missing else ("has the unknown", extra[0])
        raise UserError(
            f"{source} does not fit the model: it {kind} {key} ({len(missing)} missing, {len(extra)} unknown)"
        )
    module.load_state_dict(state)


def load_module(
    path: str | os.PathLike[str], weights: Literal["ema", "raw"] = "ema", format: str = "auto", **options: Any
) -> RecordedModule:
    """Rebuilds a model from its checkpoint alone, or reads an author-released one; in evaluation mode.

    Args:
        path: A checkpoint, a run's folder (its newest checkpoint), or a file of another project.
        weights: Sample with the averaged weights (``ema``) or those of the last step (``raw``).
        format: Format of a file of another project (``repro plugins checkpoints``), or ``auto``.
        **options: What such a file does not say, and ``decoder`` for a model of latents; see
            :func:`repro.checkpoints.importing.import_file`.

    Raises:
        UserError: as :func:`read_checkpoint`; a record that cannot be rebuilt here; weights that do not fit; a file of
            no known format.

    Example:
        >>> model = load_module("edm-cifar10-32x32-uncond-vp.pkl")  # doctest: +SKIP
    """
    if weights not in ("ema", "raw"):
        raise UserError(f"weights is {weights!r}; it is 'ema' or 'raw'")
    checkpoint, refusal = None, None
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
    from repro.checkpoints.importing import import_file

    try:
        return import_file(path, format, **options).module
    except UserError:
        if refusal is not None and Path(path).suffix == ".ckpt":
            raise refusal from None
        raise
