from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(array, suffix=".png", **options) -> bytes:
    """An image file of a uint8 array (H, W), (H, W, 3) or (H, W, 4)."""
    buffer = io.BytesIO()
    name = {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".gif": "GIF", ".ppm": "PPM"}[suffix]
    options = {"lossless": True} if suffix == ".webp" else options
    Image.fromarray(array).save(buffer, name, **options)
    return buffer.getvalue()


def pictures(count, height=6, width=6, channels=3, seed=0):
    shape = (count, height, width, channels) if channels > 1 else (count, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode="w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
