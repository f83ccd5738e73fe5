"""Folders in the layout of diffusers: where their weights and settings lie, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from repro.files import read_settings

__all__ = ["settings_in", "title_of", "weights_in"]

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def weights_in(folder: Path) -> Path | None:
    """Returns the file with the weights of the network in a folder, or in the folder ``unet`` of a pipeline; or None.

    Args:
        folder: A folder as ``save_pretrained`` of diffusers writes it.
    """
    places = (folder / "unet", folder) if (folder / "model_index.json").is_file() else (folder,)
    return next((place / name for place in places for name in _WEIGHTS if (place / name).is_file()), None)


def settings_in(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of settings; empty where there is no such file.

    Raises:
        UserError: it is damaged, larger than a megabyte, or holds something else.
    """
    return read_settings(file) if file.is_file() else {}


def title_of(path: str | os.PathLike[str]) -> str:
    """Returns the name of a released file or folder; weights in a folder of diffusers have that of the folder.

    Example:
        >>> title_of("models/DiT-XL-2.pt"), title_of("ddpm-cifar10-32/unet/diffusion_pytorch_model.bin")
        ('DiT-XL-2', 'ddpm-cifar10-32')
    """
    path = Path(path)
    if path.name not in _WEIGHTS:
        return path.resolve().name if path.is_dir() else path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "unet" else folder.name
