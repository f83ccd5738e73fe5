"""Any network in an ONNX file as a descriptor."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from repro.descriptors.base import Descriptor
from repro.errors import UserError, check_choice, unknown
from repro.files import sha256_of_file
from repro.records import record_of

__all__ = ["ONNX", "Layout", "Levels", "resized"]

Layout = Literal["NCHW", "NHWC"]
Levels = Literal["bytes", "unit", "symmetric"]
_LUMA = (0.299, 0.587, 0.114)
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes images as 8-bit pipelines do: bilinear with antialiasing, rounded to whole levels.

    Args:
        images: uint8, or floats of whole levels, shape (n, C, H, W).
        size: Height and width.

    Returns:
        Float levels in [0, 255].
    """
    if tuple(images.shape[2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    return images.float().round().clamp(0, 255)


class ONNX(Descriptor):
    """A network in an ONNX file, run by ONNX Runtime: one vector an image.

    The file is opened where it is and never copied. It must have one input of images; grey images are repeated for a
    colour network, colour images turned grey (ITU-R 601 luma) for a grey one. A model without a fixed number of images
    takes whole batches. An ONNX file holds no program of its own: operators that ONNX Runtime does not know are
    refused.

    Args:
        path: The file.
        size: Side of the square that images are scaled to; None takes the file's own size, or the images' where the
            file leaves it open.
        layout: Order of the axes of the input.
        levels: What the pixels become first: ``bytes`` 0 to 255, ``unit`` 0 to 1, ``symmetric`` -1 to 1.
        mean: Subtracted after that, one number or one a channel.
        std: Divided by after that.
        output: Name of the output that holds the vectors; None takes the first.
        threshold: Similarity above which two images are copies, in [-1, 1].

    Raises:
        UserError: an argument out of its range; at the first use, no ``onnxruntime``, no such file, a file that is no
            ONNX network of images, or another output name.

    Example:
        >>> ONNX("models/copies.onnx", size=224).name
        'ONNX(copies, 224)'
    """

    batch_size: ClassVar[int] = 32
    channels: ClassVar[tuple[int, ...]] = (1, 3)

    def __init__(
        self,
        path: str,
        size: int | None = None,
        layout: Layout = "NCHW",
        levels: Levels = "unit",
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        output: str | None = None,
        threshold: float = 0.6,
    ) -> None:
        check_choice("layout", layout, Layout)
        check_choice("levels", levels, Levels)
        if size is not None and size < 1:
            raise UserError(f"size of ONNX is {size}; give at least 1 pixel, or leave it out")
        for name, numbers in (("mean", mean), ("std", std)):
            if len(numbers) not in (1, 3):
                raise UserError(f"{name} of ONNX has {len(numbers)} numbers; give one, or one a colour channel (3)")
        if min(std) <= 0:
            raise UserError(f"std of ONNX is {list(std)}; give numbers above 0")
        if not -1 <= threshold <= 1:
            raise UserError(f"threshold of ONNX is {threshold}; give a similarity in [-1, 1]")
        self.path, self.size, self.layout, self.levels = str(path), size, layout, levels
        self.mean, self.std, self.output, self.threshold = list(mean), list(std), output, threshold

    @property
    def default_threshold(self) -> float:
        """Similarity above which two images are copies."""
        return self.threshold

    @property
    def name(self) -> str:
        """``ONNX(file, size)``."""
        settings = [Path(self.path).stem, *([str(self.size)] if self.size else [])]
        return f"ONNX({', '.join(settings)})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file's own checksum and the settings; the path does not matter."""
        record = record_of(self)
        settings = {name: value for name, value in record["args"].items() if name not in ("path", "threshold")}
        text = json.dumps([record["name"], sha256_of_file(self._file), settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Computes vectors of one batch, on the CPU."""
        pixels = self.prepare(images)
        batch = self._shape[0]
        at_once = batch if isinstance(batch, int) else len(pixels)
        parts = []
        for start in range(0, len(pixels), at_once):
            part = pixels[start : start + at_once]
            full = np.concatenate([part, np.repeat(part[-1:], at_once - len(part), axis=0)])
            parts.append(self._run(full)[: len(part)])
        return torch.from_numpy(np.concatenate(parts))

    def prepare(self, images: Tensor) -> NDArray[Any]:
        """Returns the network's input: scaled, with its channels, levels, layout and dtype.

        Args:
            images: uint8, shape (n, C, H, W) with C of 1 or 3.
        """
        axes = self._shape[1:] if self.layout == "NCHW" else (self._shape[3], *self._shape[1:3])
        sides = [self.size or (fixed if isinstance(fixed, int) else None) for fixed in axes[1:]]
        height, width = (side or own for side, own in zip(sides, images.shape[2:], strict=True))
        x = resized(images, (height, width))
        channels = axes[0] if isinstance(axes[0], int) else 3
        if channels < x.shape[1]:
            x = (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True).round()
        x = x.expand(-1, channels, -1, -1)
        if self.levels != "bytes":
            x = x / 255 if self.levels == "unit" else x / 127.5 - 1
        x = (x - x.new_tensor(self.mean).view(-1, 1, 1)) / x.new_tensor(self.std).view(-1, 1, 1)
        array = (x if self.layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous().numpy()
        return array.astype(self._dtype, copy=False)

    def _run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        try:
            (vectors,) = self._session.run([self._output_name], {self._session.get_inputs()[0].name: pixels})
        except Exception as error:  # of ONNX Runtime's own classes, which differ between versions
            raise UserError(f"{self.path} cannot describe images of shape {pixels.shape}: {_line(error)}") from error
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim < 2 or len(vectors) != len(pixels):
            raise UserError(f"{self.path} gives an array of shape {vectors.shape} for {len(pixels)} images; it must be "
                            "one vector an image: name another output with output")  # fmt: skip
        return vectors.reshape(len(vectors), -1)

    @property
    def _file(self) -> Path:
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"no ONNX file at {file}; give the path of one, *.onnx")
        return file

    @functools.cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{self.name} needs ONNX Runtime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = logging.ERROR // 10
        try:
            session = onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])
        except UserError:
            raise
        except Exception as error:  # of ONNX Runtime's own classes, which differ between versions
            raise UserError(f"{self.path} is no ONNX network that ONNX Runtime runs: {_line(error)}") from error
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            seen = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise UserError(f"{self.path} takes {seen}; a descriptor takes one batch of images, in bytes or floats")
        return session

    @property
    def _shape(self) -> list[int | str | None]:
        return self._session.get_inputs()[0].shape

    @property
    def _dtype(self) -> type[np.generic]:
        dtype = _TYPES[self._session.get_inputs()[0].type]
        if dtype is np.uint8 and (self.levels != "bytes" or self.mean != [0.0] or self.std != [1.0]):
            raise UserError(f"{self.path} takes bytes; give levels bytes, and neither mean nor std")
        return dtype

    @property
    def _output_name(self) -> str:
        names = [each.name for each in self._session.get_outputs()]
        if self.output is not None and self.output not in names:
            raise unknown(f"output of {self.path}", self.output, names)
        return self.output or names[0]

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_session"}


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
