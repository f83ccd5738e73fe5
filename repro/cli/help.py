"""Help pages that begin with what users set: the options of a command in a few sections, and how to see the rest."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from repro.cli.schema import class_of, options_of, settings_of, slot_of

__all__ = ["short_help"]

_NAMES = {"int": "N", "float": "X", "str": "TEXT", "bool": "true|false"}
_LEFT = 34


def short_help(parser: Any, sections: Mapping[str, Mapping[str, str]], last: str) -> str:
    """Writes the help page of a command: its most used options in sections, and how to see the rest.

    Args:
        parser: Its parser.
        sections: Title -> key of an option -> what it is, empty for what the parser says. An option is one of the
            parser's, or of the class that is chosen by default for one of them.
        last: What stands at the end.
    """
    lines = [f"usage: {parser.usage or parser.prog + ' [options]'}", "", *_wrapped(parser.description or "", 0)]
    for title, keys in sections.items():
        lines += ["", f"{title}:"]
        for key, about in keys.items():
            lines += _option(key, _action(parser, key), about)
    return "\n".join([*lines, "", last])


def _action(parser: Any, key: str) -> Any:
    options = settings_of(parser)
    if key in options:
        return options[key]
    top, _, rest = key.partition(".")
    return options_of(class_of(options[top].default["class_path"]))[rest]


def _option(key: str, action: Any, about: str) -> list[str]:
    hint = getattr(action, "_typehint", None)
    plain = [part for part in getattr(hint, "__args__", (hint,)) if part is not type(None)]
    kind = _NAMES.get(getattr(plain[0], "__name__", ""), "VALUE") if len(plain) == 1 else "VALUE"
    slot = slot_of(hint) if hint is not None else None
    value = "" if action.nargs == 0 else " NAME" if slot and slot.groups else f" {action.metavar or kind}"
    left = f"  {'' if not action.option_strings else '--'}{key}{value}"
    about = about or " ".join((action.help or "").replace("%%", "%").split())
    about = re.sub(r":\w+:`~?([^`]*)`", r"\1", about).replace("``", "")
    if slot and slot.groups:
        about = f"{about} List them: repro plugins {slot.groups[0]}."
    elif action.default and isinstance(action.default, int | float | str) and action.default != "==SUPPRESS==":
        about = f"{about.removesuffix('.')} (default: {action.default})."
    text = _wrapped(about, _LEFT)
    if len(left) < _LEFT - 1:
        return [left.ljust(_LEFT) + text[0].lstrip(), *text[1:]] if text else [left]
    return [left, *text]


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 110) - 2
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)
