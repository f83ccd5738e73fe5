"""Addresses in the place of a path: nothing is downloaded, what is in the cache of the hub is used."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from repro.errors import UserError

__all__ = ["local_path"]

_HUB = re.compile(r"hf://(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*?)(@(?P<revision>[\w./-]+?))?/(?P<file>[^/@].*)")


def local_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a file on this machine.

    Args:
        path: A path; or ``hf://owner/name/file`` (``hf://owner/name@revision/file``) for a file that is in the cache
            of ``huggingface_hub``.

    Raises:
        UserError: another address, or one whose file is not in the cache; the line says how to get it.

    Example:
        >>> local_path("runs/edm/checkpoints/last.ckpt").name
        'last.ckpt'
    """
    text = os.fspath(path)
    if not re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        return Path(path)
    if not text.startswith("hf://"):
        raise UserError(f"{text} is an address; download it first, and name the file: curl -LO {text}")
    address = _HUB.fullmatch(text)
    if address is None:
        raise UserError(f"{text} names no file on the hub; write hf://owner/name/file")
    repository, revision, file = address["repository"], address["revision"], address["file"]
    command = f"hf download {repository} {file}" + (f" --revision {revision}" if revision else "")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{text} needs huggingface_hub: pip install huggingface_hub, then {command}")
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, revision=revision)
    if not isinstance(cached, str):
        raise UserError(f"{text} is not in the cache of huggingface_hub; download it first: {command}")
    return Path(cached)
