"""Text for terminals and tables, which may hold names out of files of others."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_text", "printable", "say"]

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format (direction), surrogates, line, paragraph
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are wide ones


def printable(text: str) -> str:
    """Makes a text safe for a terminal: control, direction and line characters become escapes such as ``\\x1b``.

    Example:
        >>> printable("edm\\x1b[2J")
        'edm\\\\x1b[2J'
    """
    return "".join(
        each if unicodedata.category(each) not in _UNSAFE else each.encode("unicode_escape").decode() for each in text
    )


def say(*lines: str, aside: bool = False) -> None:
    """Prints lines to a terminal, made :func:`printable`: the one outlet for text, which may hold names of others.

    Args:
        *lines: Lines, without their ends.
        aside: To stderr, for what is no result.

    Example:
        >>> say("drawn by edm\\x1b[2J")
        drawn by edm\\x1b[2J
    """
    safe = ("\t".join(map(printable, line.split("\t"))) for line in lines)  # a tab does no harm there
    print(*safe, sep="\n", file=sys.stderr if aside else sys.stdout, flush=True)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes rows of the same columns as CSV.

    Texts are made printable, and a text that a spreadsheet would take for a formula (``=``, ``+``, ``-``, ``@``) gets
    an apostrophe in front, as names may come from files of others.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(column) for column in rows[0]])
    writer.writerows([_cell(row.get(column)) for column in rows[0]] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)
