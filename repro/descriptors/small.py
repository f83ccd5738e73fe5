"""Small SSCD networks, trained by this project on small images; two of them ship with it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from repro.descriptors.base import PAPER_THRESHOLD, Descriptor
from repro.descriptors.domain import Domain
from repro.devices import onto
from repro.errors import UserError, unknown
from repro.files import write_whole
from repro.images import to_float
from repro.models.descriptor import CopyDescriptor
from repro.networks.sscd import SSCDNetwork
from repro.records import record_of

__all__ = ["SHIPPED", "SmallSSCD", "shipped_file"]

SHIPPED = ("digits", "cifar")
"""Names of the descriptors that come with the package: for 8 x 8 grey and for 32 x 32 colour images."""
_DOMAINS = {
    "digits": Domain("8 x 8 grey digits", 1, (8, 8), (60, 130), (0.3, 1.0)),
    "cifar": Domain("32 x 32 colour photographs", 3, (32, 32), (20, 100), (0.05, 0.7)),
}
_FORMAT = "1"
_SIZES = ("channels", "widths", "depths", "block", "stem", "stem_width", "dims")
_LUMA = (0.299, 0.587, 0.114)


def shipped_file(name: str) -> Path:
    """Where the weights of a shipped descriptor are; its training record and evaluation lie beside them, as JSON."""
    return Path(__file__).parent / "weights" / f"sscd_{name}.safetensors"


class _Loaded(NamedTuple):
    network: SSCDNetwork
    sizes: dict[str, Any]
    image_size: int
    threshold: float
    digest: str


class SmallSSCD(Descriptor):
    """A small network trained as SSCD is, on images of one size; others are scaled to it.

    Those that ship, with what they were trained on and how well they find copies, stand in
    ``repro/descriptors/weights``; ``repro study descriptors`` measures them. Colour images are turned grey for a grey
    network (ITU-R 601), grey ones repeated for a colour network.

    Args:
        weights: ``digits``, ``cifar``, a file written by :meth:`save`, or a run or checkpoint of ``CopyDetection``.

    Raises:
        UserError: unknown weights; at the first use, a file that is missing, damaged or of another kind.

    Example:
        >>> SmallSSCD("digits").features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 64])
    """

    channels: ClassVar[tuple[int, ...]] = (1, 3)

    def __init__(self, weights: str = "cifar") -> None:
        self.weights = str(weights)
        looks_like_a_path = os.sep in self.weights or Path(self.weights).suffix in (".safetensors", ".ckpt")
        if self.weights not in SHIPPED and not looks_like_a_path and not Path(self.weights).exists():
            raise unknown("weights of SmallSSCD", self.weights, SHIPPED, "or a run of CopyDetection")

    @classmethod
    def fitting(cls, image_shape: tuple[int, int, int]) -> SmallSSCD:
        """Returns the shipped descriptor for images (C, H, W): ``digits`` for grey ones of at most 16 pixels a side."""
        channels, height, width = image_shape
        return cls("digits" if channels == 1 and max(height, width) <= 16 else "cifar")

    @property
    def name(self) -> str:
        """``SmallSSCD(weights)``."""
        return f"SmallSSCD({Path(self.weights).name.removesuffix('.safetensors')})"

    @property
    def domain(self) -> Domain | None:
        """What images a shipped descriptor was trained on; None for others."""
        return _DOMAINS.get(self.weights)

    @property
    def default_threshold(self) -> float:
        """Similarity above which two images are copies, chosen beside its false-positive rate."""
        return self._loaded.threshold

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the sizes and every weight; the path does not matter."""
        record = {"name": record_of(self)["name"], "weights": self._loaded.digest}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Embeddings of one batch."""
        return self._loaded.network.to(device)(self.prepare(images, device))

    def prepare(self, images: Tensor, device: torch.device) -> Tensor:
        """Returns the network's input: in [-1, 1], at its size and with its channels.

        Args:
            images: uint8, shape (n, C, H, W) with C of 1 or 3.
            device: Where the result lies.
        """
        x, size, channels = to_float(onto(device, images)), self._loaded.image_size, self._loaded.sizes["channels"]
        if channels < images.shape[1]:
            x = (x * onto(device, torch.tensor(_LUMA).view(3, 1, 1))).sum(1, keepdim=True)
        if tuple(x.shape[2:]) != (size, size):
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return x.expand(-1, channels, -1, -1)

    def save(self, path: str | os.PathLike[str], threshold: float | None = None) -> None:
        """Writes network and settings to one file, weights in half precision.

        Args:
            path: A ``.safetensors`` file.
            threshold: The default threshold that it gets; by default it keeps its own.
        """
        from safetensors.torch import save

        loaded = self._loaded
        state = {
            name: tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor.cpu()
            for name, tensor in loaded.network.state_dict().items()
        }
        settings = {
            "format": _FORMAT,
            "network": json.dumps(loaded.sizes),
            "image_size": str(loaded.image_size),
            "threshold": str(loaded.threshold if threshold is None else threshold),
        }
        with write_whole(path) as file:
            file.write(save(state, settings))

    @functools.cached_property
    def _loaded(self) -> _Loaded:
        if self.weights in SHIPPED:
            return _of_file(shipped_file(self.weights))
        path = Path(self.weights).expanduser()
        return _of_file(path) if path.suffix == ".safetensors" else _of_checkpoint(path)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}


def _of_file(path: Path) -> _Loaded:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no descriptor at {path}; train one: repro fit --config sscd_digits")
    try:
        with safe_open(path, framework="pt") as file:
            settings, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if settings.get("format") != _FORMAT:
            raise ValueError("it was not written by SmallSSCD.save")
        sizes, size = json.loads(settings["network"]), int(settings["image_size"])
        return _built(sizes, state, size, float(settings["threshold"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is no small SSCD descriptor, or damaged ({reason})") from error


def _of_checkpoint(path: Path) -> _Loaded:
    from repro.checkpoints.loading import load_model

    model = load_model(path)
    if not isinstance(model, CopyDescriptor):
        raise UserError(f"{path} holds a {type(model).__name__}, no descriptor; name a run of CopyDetection")
    arguments = record_of(model)["args"]
    sizes = {name: arguments[name] for name in _SIZES}
    return _built(sizes, model.network.state_dict(), arguments["image_size"], PAPER_THRESHOLD)


def _built(sizes: dict[str, Any], state: Mapping[str, Tensor], size: int, threshold: float) -> _Loaded:
    network = SSCDNetwork(**sizes)
    network.load_state_dict(dict(state))
    network.eval().requires_grad_(False)
    digest = hashlib.sha256(json.dumps([sizes, size], sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return _Loaded(network, sizes, size, threshold, digest.hexdigest())
