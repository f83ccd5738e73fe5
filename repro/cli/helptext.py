"""Help pages kept from one call to the next: making one imports everything, showing it again should not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import repro
from repro.errors import UserError
from repro.files import cache_folder, write_text
from repro.registry import GROUPS, entries

__all__ = ["show_help"]

_PACKAGES = ("repro", "jsonargparse", "lightning", "torch")


def _key(command: str) -> str:
    """Hash of what a help page depends on: versions, plug-ins, this package's own files, the terminal's width."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    root = Path(repro.__file__).parent
    files = [(str(path), path.stat().st_mtime_ns) for path in sorted(root.rglob("*.py"))]
    plugins = [vars(entry) for group in GROUPS for entry in entries(group)]
    known = [command, sys.version, os.fspath(root), shutil.get_terminal_size().columns, versions, files, plugins]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def show_help(command: str, make: Callable[[], object]) -> int:
    """Prints the help page of a command: as it was kept, or made anew when something it depends on has changed.

    Args:
        command: The command.
        make: Prints the page; may leave by SystemExit.
    """
    page, key = None, _key(command)
    with contextlib.suppress(UserError):
        page = cache_folder("help") / f"{command}.json"
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(page.read_text())
            if kept["key"] == key:
                print(kept["text"], end="")
                return 0
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        make()
    print(printed.getvalue(), end="")
    if page is not None and printed.getvalue():
        with contextlib.suppress(UserError):
            write_text(page, json.dumps({"key": key, "text": printed.getvalue()}))
    return 0
