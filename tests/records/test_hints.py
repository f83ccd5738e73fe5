"""Type hints as data: classes that they declare, plain values that fit them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from repro.denoisers import Denoiser
from repro.kernels import Kernel
from repro.records import UNKNOWN, classes_in, fits, hints_of, required_of
from repro.samplers import Sampler


class Below:
    def __init__(self, size: int, kernel: Kernel | None = None, **open: Any) -> None: ...


class Above(Below):
    def __init__(self, flags: list[bool], untold=None, **more: Any) -> None:
        super().__init__(**more)


class Strange:
    def __init__(self, part: NoSuchName = None) -> None: ...  # noqa: F821


def test_hints_follow_what_is_passed_on():
    assert hints_of(Above) == {"flags": list[bool], "untold": UNKNOWN, "size": int, "kernel": Kernel | None}
    assert hints_of(Strange) == {"part": UNKNOWN}
    assert (required_of(Above), required_of(Below), required_of(Strange)) == (["flags"], ["size"], [])


@pytest.mark.parametrize(
    ("hint", "classes"),
    [
        (Kernel, (Kernel,)),
        (Kernel | Sampler | None, (Kernel, Sampler)),
        (list[Denoiser] | str, (Denoiser,)),
        (dict[str, Kernel], ()),
        (Callable[..., Kernel], ()),
        (type[Kernel], ()),
        (Literal["a", 1], ()),
        (str | os.PathLike[str] | Path, ()),
        (Any, ()),
        (UNKNOWN, ()),
        (object, ()),
    ],
)
def test_only_objects_are_declared(hint, classes):
    assert classes_in(hint) == classes


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [3, -1], [3.0, True, "3", None, [3]]),
        (float, [3, 3.5], [True, "3", None]),
        (bool, [True], [1, "true", None]),
        (str, ["x"], [1, None, ["x"]]),
        (int | None, [None, 2], ["x", 2.5]),
        (list[int], [[], [1, 2], (1,)], [["a"], 3, "12", None, {"a": 1}]),
        (Sequence[float], [[1, 2.5]], [["a"], 3]),
        (tuple[int, int], [[1, 2]], [[1], [1, 2, 3], ["a", 2]]),
        (tuple[int, ...], [[], [1, 2, 3]], [[1.5]]),
        (dict[str, Any], [{}, {"a": 1}], [[], "a", None]),
        (Literal["a", "b"], ["a"], ["c", 1, None]),
        (Literal[1, 2], [1], [True, 3]),
        (Kernel, [], ["VP", 3, None, [1], True]),
        (Kernel | str, ["VP"], [3, None]),
        (os.PathLike[str] | str, ["x"], [None]),
        (Any, [1, None, "x", [], {}], []),
        (torch.dtype | None, [None], [3]),
    ],
)
def test_values_fit(hint, right, wrong):
    assert [value for value in right if not fits(value, hint)] == []
    assert [value for value in wrong if fits(value, hint)] == []
