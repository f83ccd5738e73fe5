"""Names of files and folders as people read them: which are passed over, which are equal, and their order."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean_name", "is_hidden", "natural_order"]

_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"}
)
"""What systems and network drives leave in folders, with small letters: previews, waste baskets, repaired files."""


def is_hidden(name: str) -> bool:
    """Says whether a relative name lies in a hidden folder or in one that a system left, or is itself hidden.

    Example:
        >>> is_hidden("cats/@eaDir/1.png"), is_hidden("cats/1.png")
        (True, False)
    """
    return any(part.startswith(".") or part.lower() in _SYSTEM_FOLDERS for part in name.split("/"))


def clean_name(name: str) -> str:
    """Normalises a relative name: forward slashes, no ``./``, letters with accents as one character each.

    Example:
        >>> clean_name("./cafe\\u0301\\\\1.png") == "caf\\u00e9/1.png"
        True
    """
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Makes a sorting key that takes the digits in a name as numbers.

    Example:
        >>> sorted(["10.png", "9.png"], key=natural_order)
        ['9.png', '10.png']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
