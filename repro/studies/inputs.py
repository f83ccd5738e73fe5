"""What a study compares when its user names it: words such as ``NAME=PATH`` after the study's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from repro.drawing.systems import named
from repro.errors import UserError

__all__ = ["named_inputs"]

_FILES = (".pt", ".pth", ".pkl", ".ckpt", ".safetensors")


def named_inputs(words: Sequence[str], what: str) -> dict[str, str]:
    """Splits words ``NAME=PATH`` or ``PATH`` into names, all different, and paths.

    Args:
        words: Two or more.
        what: What they are, for messages, such as ``pipelines``.

    Raises:
        UserError: fewer than two, a name twice, or one that is no name of a folder.

    Example:
        >>> named_inputs(["a=models/sd-v1-3", "CompVis/stable-diffusion-v1-4"], "pipelines")
        {'a': 'models/sd-v1-3', 'stable-diffusion-v1-4': 'CompVis/stable-diffusion-v1-4'}
    """
    if len(words) < 2:
        raise UserError(f"{len(words)} of the {what} named; name two or more: NAME=PATH NAME=PATH")
    result: dict[str, str] = {}
    for word in words:
        name, path = named(word)
        name = _name(path) if name is None else name
        if name in result:
            raise UserError(f"two of the {what} are called {name}; name them apart: NAME={path}")
        if not name or name.startswith(".") or set(name) & {"/", "\\"}:
            raise UserError(f"{name!r} cannot be the name of a folder; name {path} another way: NAME={path}")
        result[name] = path
    return result


def _name(path: str) -> str:
    last = PurePath(path)
    return last.stem if last.suffix in _FILES else last.name
