"""``repro new NAME``: a package with the smallest complete plug-in of each kind, ready to install and to change."""

from __future__ import annotations

import argparse
import re
import shutil
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from repro.errors import UserError
from repro.files import say

__all__ = ["run", "write_package"]

_TEMPLATE = "plugin_example"
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


def write_package(name: str, folder: Path) -> list[Path]:
    """Writes the package, with the tests that run the laws over it.

    Args:
        name: Of the package, such as ``my-models``; imported as ``my_models``.
        folder: A folder that does not exist yet.

    Returns:
        The files.

    Raises:
        UserError: a name that is none, or a folder that exists or cannot be made.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a package; give small letters, digits and single dashes: my-models")
    if folder.exists():
        raise UserError(f"{folder} exists; give another name, or another folder: --output DIR")
    module = name.replace("-", "_")
    written = []
    try:
        for inner, source in _below(files("repro.cli") / "template", ()):
            path = folder.joinpath(*(module if part == _TEMPLATE else part for part in inner))
            path.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            path.write_text(text.replace("plugin-example", name).replace(_TEMPLATE, module), encoding="utf-8")
            written.append(path)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was not there before
        raise UserError(f"cannot write the package to {folder}: {error.strerror}") from error
    return written


def _below(folder: Traversable, above: tuple[str, ...]) -> list[tuple[tuple[str, ...], Traversable]]:
    """The files below a folder of this package, each with the names that lead to it."""
    files = []
    for child in sorted(folder.iterdir(), key=lambda each: each.name):
        if child.is_dir() and child.name != "__pycache__":
            files += _below(child, (*above, child.name))
        elif child.is_file() and not child.name.endswith(".pyc"):
            files.append(((*above, child.name), child))
    return files


def run(command: str, arguments: list[str]) -> int:
    """Writes a package and tells what to do with it.

    Args:
        command: ``new``.
        arguments: The words after it.

    Raises:
        UserError: as :func:`write_package`.
    """
    parser = argparse.ArgumentParser(
        prog=f"repro {command}",
        description="Writes a package with the smallest complete plug-in of each kind, its configs and its tests. "
        "What each kind is, its base class and its law: repro/plugins.md.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="Of the package, such as my-models.")
    parser.add_argument("--output", metavar="DIR", help="Its folder; ./NAME by default.")
    chosen = parser.parse_args(arguments)
    if chosen.name is None:
        raise UserError("name the package: repro new my-models")
    folder = Path(chosen.output or chosen.name)
    for path in write_package(chosen.name, folder):
        say(str(path))
    say(f"install it: pip install -e {folder}; its laws: pytest {folder}; then: repro plugins")
    say("run it: repro fit --config two_convolutions; repro study two_widths")
    return 0
