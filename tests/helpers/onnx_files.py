"""ONNX files of one convolution, written byte by byte: no package that writes them is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT, UINT8, INT64 = 1, 2, 7


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while True:
        parts.append((value & 127) | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(parts)


def _part(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(kind: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    found = b"".join(_part(1, each) for each in inputs) + _part(2, output) + _part(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):
            found += _part(5, _part(1, name) + _number(3, value) + _number(20, 2))
        else:
            found += _part(5, _part(1, name) + b"".join(_number(8, each) for each in value) + _number(20, 7))
    return found


def _value(name: str, dtype: int, shape: list[int | str]) -> bytes:
    sides = b"".join(_part(1, _number(1, side) if isinstance(side, int) else _part(2, side)) for side in shape)
    return _part(1, name) + _part(2, _part(1, _number(1, dtype) + _part(2, sides)))


def write_onnx(
    path: Path,
    weights: np.ndarray,
    dtype: int = FLOAT,
    layout: str = "NCHW",
    batch: int | str = "batch",
    side: int | str = "side",
    kind: str = "Conv",
) -> Path:
    """A network that convolves, with stride, and averages over places: (n, C, side, side) to (n, K).

    Args:
        path: Where it is written.
        weights: float32 (K, C, k, k).
        dtype: Of the input.
        layout: NCHW, or NHWC, which is turned first.
        batch: Images a call, or a name for any number.
        side: Height and width, or a name for any.
        kind: The convolution's operator.
    """
    count, channels, kernel = weights.shape[0], weights.shape[1], weights.shape[2]
    shape: list[int | str] = [batch, channels, side, side] if layout == "NCHW" else [batch, side, side, channels]
    nodes = [
        _node("Cast", ["image"], "floats", to=FLOAT),
        _node("Transpose", ["floats"], "turned", perm=[0, 1, 2, 3] if layout == "NCHW" else [0, 3, 1, 2]),
        _node(kind, ["turned", "weights"], "places", strides=[kernel, kernel]),
        _node("GlobalAveragePool", ["places"], "pooled"),
        _node("Flatten", ["pooled"], "vectors"),
    ]
    tensor = b"".join(_number(1, side) for side in weights.shape) + _number(2, FLOAT) + _part(8, "weights")
    graph = b"".join(_part(1, node) for node in nodes) + _part(2, "graph")
    graph += _part(5, tensor + _part(9, weights.astype("<f4").tobytes()))
    graph += _part(11, _value("image", dtype, shape)) + _part(12, _value("vectors", FLOAT, [batch, count]))
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, _part(1, "") + _number(2, 13)))
    return path
