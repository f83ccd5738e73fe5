"""This project's own checkpoints: tensors and plain records, written whole, read without executing."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from repro.errors import UserError, nearest
from repro.files import write_whole
from repro.models.decoded import Decoded
from repro.records import record_of
from repro.released.importing import Imported

__all__ = ["FORMAT", "AtomicCheckpointIO", "checkpoint_of", "data_of", "read_checkpoint", "training_record"]

FORMAT = 2
_READ = (1, 2)

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
    if record.get("format") not in _READ:
        raise UserError(f"checkpoint {path} has format {record.get('format')!r}; this version reads {_READ}")
    return checkpoint


def checkpoint_of(imported: Imported) -> dict[str, Any]:
    """Makes a checkpoint of a model that came from another project's file, with where it came from."""
    model = imported.model
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"trained.network.{name}": tensor for name, tensor in (imported.file.raw or {}).items()}
    averaged = "model.denoiser" if isinstance(model, Decoded) else "denoiser"
    record = {"record": record_of(model), "averaged": averaged, "data": None, "data_fingerprint": ""}
    return {
        "state_dict": state,
        "global_step": 0,
        "repro": {"format": FORMAT, "model": record, "imported": imported.record()},
    }


def training_record(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plain record of the training module that a checkpoint goes on with; None for one that only has a model."""
    record = checkpoint["repro"]
    return record["model"] if record["format"] == 1 else record.get("training", {}).get("record")


def data_of(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The plain record and the fingerprint of the data that a checkpoint was trained on."""
    record = checkpoint["repro"]
    held = record if record["format"] == 1 else record["model"]
    return held["data"], held["data_fingerprint"]
