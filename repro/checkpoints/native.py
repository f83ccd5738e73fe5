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

from repro.banks.manifest import MANIFEST_NAME
from repro.errors import UserError, nearest
from repro.files import make_folder, write_whole
from repro.models.decoded import Decoded
from repro.records import fits, is_record, record_of
from repro.released.importing import Imported

__all__ = [
    "FORMAT",
    "AtomicCheckpointIO",
    "check_bytes",
    "checkpoint_of",
    "class_names_of",
    "data_of",
    "read_checkpoint",
    "training_record",
]

FORMAT = 2
_READ = (1, 2)
_OF_MODEL = {"record", "averaged", "data", "data_fingerprint", "class_names"}

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
        make_folder(Path(path).parent)
        with write_whole(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | os.PathLike[str], *rest: Any, **more: Any) -> dict[str, Any]:
        """Reads a checkpoint after checking that its bytes are those that were written."""
        check_bytes(path)
        return super().load_checkpoint(path, *rest, **more)


def check_bytes(path: str | os.PathLike[str]) -> None:
    """Raises UserError when a checkpoint's bytes are not those that were written, by the CRC of each part."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"cannot read checkpoint {path}: it is damaged ({reason})") from error
    if damaged is not None:
        raise UserError(f"cannot read checkpoint {path}: its bytes changed after it was written (in {damaged[:60]!r})")


def read_checkpoint(path: str | os.PathLike[str], verify: bool = True) -> dict[str, Any]:
    """Reads a checkpoint of this project to the CPU, with ``weights_only=True``, and checks its form.

    Args:
        path: The file, or the folder of a run.
        verify: Whether every byte is checked first; without it only those that are looked at are read.

    Raises:
        UserError: no such file, damaged or cut off, or a file of another format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        if path.parts[-2:] == ("checkpoints", "last.ckpt") and (path.parents[1] / MANIFEST_NAME).is_file():
            bank = path.parents[1]
            raise UserError(f"{bank} is a bank of images, not a run or checkpoint; type: repro compare {bank} OTHER")
        siblings = [str(file) for file in path.parent.glob("*") if file.is_file()] if path.parent.is_dir() else []
        near = nearest(str(path), siblings)
        raise UserError(f"no checkpoint at {path}{f'; did you mean {near}?' if near else ''}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"cannot read checkpoint {path}: it is cut off, or no checkpoint of repro")
    if verify:
        check_bytes(path)
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
    if wrong := _wrong_part(checkpoint, record):
        raise UserError(f"checkpoint {path} is damaged: {wrong} is not what a checkpoint has there")
    return checkpoint


def _wrong_part(checkpoint: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """The part of a checkpoint that has another form than it must have, before anything is built from it."""
    state = checkpoint["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(each, torch.Tensor) for each in state.values()):
        return "state_dict"
    held = record if record["format"] == 1 else record.get("model")
    if not isinstance(held, Mapping) or not {"data", "data_fingerprint"} <= held.keys():
        return "repro.model"
    training, imported = record.get("training", {}), record.get("imported", {"path": "", "sha256": ""})
    if not isinstance(training, Mapping) or (training and not is_record(training.get("record"))):
        return "repro.training"
    model = held.get("model") if record["format"] == 1 else held.get("record", training.get("record"))
    right = {
        "repro.model": is_record(model) and (record["format"] == 1 or held.keys() <= _OF_MODEL),
        "repro.model.averaged": isinstance(held.get("averaged", ""), str),
        "repro.model.data": held["data"] is None or is_record(held["data"]),
        "repro.model.data_fingerprint": isinstance(held["data_fingerprint"], str),
        "repro.model.class_names": fits(held.get("class_names", []), list[str]),
        "repro.imported": isinstance(imported, Mapping) and {"path", "sha256"} <= imported.keys(),
    }
    return next((part for part, is_right in right.items() if not is_right), None)


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


def class_names_of(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns names of the classes that a checkpoint was trained on; empty when they are not known."""
    return tuple(checkpoint["repro"]["model"].get("class_names", ()))


def data_of(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Returns the plain record and the fingerprint of the data that a checkpoint was trained on."""
    record = checkpoint["repro"]
    held = record if record["format"] == 1 else record["model"]
    return held["data"], held["data_fingerprint"]
