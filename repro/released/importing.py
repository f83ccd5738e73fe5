"""Reading author-released checkpoints: which format a file has, and the model that it holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro import registry
from repro.errors import UserError, unknown
from repro.models.base import Model
from repro.models.weights import load_weights
from repro.released.base import ForeignFile, Format
from repro.released.containers import kind_of

__all__ = ["AUTO", "AssumedWarning", "Imported", "assumptions", "format_of", "import_file"]

AUTO = "auto"
_DAMAGE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Imported:
    """A model that came from another project's file.

    Attributes:
        model: The model, in evaluation mode.
        file: The file, with what was found and assumed.
        format: Name of its format.
    """

    model: Model
    file: ForeignFile
    format: str

    def raw_model(self) -> Model:
        """Returns the model with the weights of the last step, where the file has them beside averaged ones."""
        if self.file.raw is not None:
            load_weights(self.model.denoiser.network, self.file.raw, str(self.file.path))
        return self.model

    def tell(self) -> None:
        """Warns of what was assumed, if anything; the command line shows it on stderr."""
        if self.file.assumed:
            message = f"{self.file.path} ({self.file.found}) does not say everything"
            warnings.warn(f"{message}: assumed {assumptions(self.file.assumed)}", AssumedWarning, stacklevel=2)

    def record(self) -> dict[str, Any]:
        """Says where the model came from, as plain data."""
        return {
            "path": str(self.file.path.resolve()),
            "sha256": self.file.sha256,
            "format": self.format,
            "found": self.file.found,
            "assumed": self.file.assumed,
        }


class AssumedWarning(Warning):
    """What was assumed about a file of another project that does not say it."""


def assumptions(assumed: Any, before: str = "") -> str:
    """Writes assumed options as they would be typed; empty when there are none.

    Args:
        assumed: Values by the name of the option; what is no mapping has none.
        before: Stands in front of them, if there are any.

    Example:
        >>> assumptions({"kernel": "VP", "boundaries": [0.4, 0.6]}, "assumed ")
        'assumed --kernel VP --boundaries [0.4,0.6]'
    """
    items = assumed.items() if isinstance(assumed, Mapping) else ()
    options = [f"--{option} {str(value).replace(' ', '')}" for option, value in items]
    return before + " ".join(options) if options else ""


def format_of(file: ForeignFile, name: str = AUTO) -> str:
    """Returns the name of a file's format.

    Args:
        file: The file.
        name: The format that it should have, or ``auto``.

    Raises:
        UserError: an unknown format, or a file that is not of this one, of none, or of several; a file that cannot be
            read, or that asks for something that no checkpoint needs.
    """
    known = registry.names("checkpoints")
    if name not in (AUTO, *known):
        raise unknown("format", name, [AUTO, *known])
    fitting, refusal = [], None
    for each in known if name == AUTO else [name, *(other for other in known if other != name)]:
        try:
            if registry.build("checkpoints", each).recognises(file):
                fitting.append(each)
        except UserError as error:
            refusal = refusal or error
        if fitting == [name]:
            return name
    if len(fitting) == 1 and name == AUTO:
        return fitting[0]
    if not fitting and refusal is not None:
        raise refusal
    if name != AUTO:
        hint = f"; it looks like {fitting[0]}: type --format {fitting[0]}" if fitting else ""
        raise UserError(f"{file.path} is not of the format {name}{hint}")
    if fitting:
        raise UserError(f"{file.path} could be {' or '.join(fitting)}; type --format {fitting[0]}, or another of them")
    why = "its names fit none of them"
    if file.unread:
        why = f"it names {next(iter(file.unread))[:80]!a}, which is not read; nothing of it was run"
    raise UserError(f"{file.path}, {kind_of(file.path)}, is of no known format ({', '.join(known)}); {why}")


def import_file(path: str | os.PathLike[str], format: str = AUTO, **options: Any) -> Imported:
    """Reads the model in an author-released checkpoint.

    Args:
        path: The file.
        format: Name of its format, or ``auto``.
        **options: What the file does not say; arguments of the format's class.

    Raises:
        UserError: as :func:`format_of`; an unknown option; a file that is damaged, or leaves open what has no default.
    """
    file = ForeignFile(path)
    name = format_of(file, format)
    chosen: Format = registry.build("checkpoints", name, **options)
    try:
        model = chosen.read(file)
    except UserError:
        raise
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise UserError(
            f"cannot read {path} as {name}: its settings or tensors do not fit together ({reason})"
        ) from error
    model.origin = (
        f"{file.path.resolve()} ({name}, sha256 {file.sha256}; {file.found}{assumptions(file.assumed, '; assumed ')})"
    )
    return Imported(model.eval().requires_grad_(False), file, name)
