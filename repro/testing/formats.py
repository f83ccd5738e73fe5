"""Laws that every format of released files obeys; plug-in packages run them too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from repro import records, registry
from repro.checkpoints.native import checkpoint_of
from repro.errors import UserError
from repro.released.base import ForeignFile
from repro.released.importing import Imported, format_of, import_file

__all__ = ["check_format"]


def check_format(name: str, path: Path, others: Iterable[Path], **options: Any) -> Imported:
    """Checks a format on one of its files: it is recognised by this format alone, and its model stands on its own.

    Args:
        name: The format's name in the group ``repro.checkpoints``.
        path: A file of this format.
        others: Files of other formats.
        **options: What the file does not say.

    Returns:
        The model, for further checks.

    Raises:
        AssertionError: a law does not hold; the message says which.
    """
    chosen: Any = registry.load("checkpoints", name)
    assert chosen.about, f"{name} does not say what it reads: set about"
    assert format_of(ForeignFile(path)) == name, f"auto does not find {name} for {path.name}"
    for other in others:
        assert not registry.build("checkpoints", name).recognises(ForeignFile(other)), f"{name} also takes {other.name}"
        with contextlib.suppress(UserError):
            import_file(other, name)
            raise AssertionError(f"{name} imports {other.name}")
    before = path.read_bytes()
    imported = import_file(path, **options)
    assert path.read_bytes() == before, f"{name} changes the file it reads"
    assert imported.file.found, f"{name} does not say what it found"
    _check_model(name, imported)
    again = import_file(path, name, **options).model
    assert again.fingerprint() == imported.model.fingerprint(), f"{name} reads one file in two ways"
    options_used = imported.file.assumed | options
    settled = import_file(path, name, **options_used)
    assert not settled.file.assumed, f"{name} still assumes {settled.file.assumed} when it is told"
    assert settled.model.fingerprint() == again.fingerprint(), f"{name}: what it assumes is not what it says"
    return imported


def _check_model(name: str, imported: Imported) -> None:
    model = imported.model
    assert not model.training, f"{name} gives a model in training mode"
    assert not any(p.requires_grad for p in model.parameters()), f"{name} gives weights that ask for gradients"
    assert imported.file.sha256 in (model.origin or ""), f"{name}: the origin does not name the file's bytes"
    record = checkpoint_of(imported)
    rebuilt = records.rebuild(record["repro"]["model"]["record"])
    state = record["state_dict"].items()
    rebuilt.load_state_dict({k.removeprefix("model."): each for k, each in state if k.startswith("model.")})
    assert rebuilt.fingerprint() == model.fingerprint(), f"{name}: the model is not rebuilt from its own record"
    labels = torch.zeros(2, dtype=torch.int64) if model.num_classes else None
    assert model.sampler is not None, f"{name} gives a model without a sampler"
    sampler = None if model.sampler.consistency else registry.build("samplers", "Euler", steps=1)
    images = model.sample([0, 1], labels, sampler)
    assert images.shape == (2, *model.image_shape), f"{name}: images of shape {tuple(images.shape)}"
