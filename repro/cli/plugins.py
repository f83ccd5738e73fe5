"""``repro plugins``: everything that has a name, read from metadata and source files, importing none of it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from repro.cli.configs import named_configs
from repro.cli.source import first_line_of
from repro.errors import UserError, unknown
from repro.files import printable, say
from repro.registry import Entry, entries, group_names

__all__ = ["Row", "rows", "run"]

_COLUMNS = ("group", "name", "class", "package", "version", "about")


@dataclass(frozen=True)
class Row:
    """One line of the list: an entry, what it is about, and what is wrong with it (empty when nothing is)."""

    entry: Entry
    about: str
    problem: str

    def cells(self) -> tuple[str, ...]:
        """Lists the text of each column."""
        entry = self.entry
        about = f"BROKEN: {self.problem}" if self.problem else self.about
        return entry.group, entry.name, entry.target, entry.package, entry.version, about


def rows(group: str | None = None) -> list[Row]:
    """Lists the registered entries of one group, or of all of them; the configs are a group too.

    Raises:
        UserError: unknown group.
    """
    known = _groups()
    if group is not None and group not in known:
        raise unknown("plug-in group", group, known)
    return [row for each in ([group] if group else known) for row in _rows_of(each)]


def _groups() -> list[str]:
    return [*group_names(), "configs"]


def _described(group: str) -> Iterator[Row]:
    """Everything of one group with what it is about, or why it is broken."""
    if group == "configs":
        for config in named_configs():
            entry = Entry(group, config.name, str(config.path or ""), config.package, config.version)
            yield Row(entry, "" if config.problem else config.about, config.problem)
        return
    for entry in entries(group):
        try:
            yield Row(entry, first_line_of(entry.target), "")
        except UserError as error:
            yield Row(entry, "", str(error))


def _rows_of(group: str) -> list[Row]:
    described = list(_described(group))
    registered = [row.entry for row in described]
    claims = Counter(entry.name for entry in registered)
    result = []
    for row in described:
        entry, problem = row.entry, row.problem
        if claims[entry.name] > 1:
            same = [each for each in registered if each.name == entry.name and each != entry]
            others = {each.package for each in same} or {entry.package}
            problem = f"{' and '.join(sorted(others))} claims this name too; uninstall one of them"
        result.append(Row(entry, row.about, problem))
    return result


def _print_table(listed: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for column in ("group", "name", "about", "class", "package"):
        flexible = {"about": 3, "class": 2}.get(column)
        table.add_column(column, overflow="fold", no_wrap=flexible is None, ratio=flexible)
    for row in listed:
        group, name, target, package, version, about = map(printable, row.cells())
        table.add_row(group, name, about, target, f"{package} {version}", style="red" if row.problem else None)
    Console(markup=False, highlight=False).print(table)


def run(command: str, arguments: list[str]) -> int:
    """Prints the list: a table on a terminal, tab-separated otherwise.

    Args:
        command: ``plugins``.
        arguments: The words after it.

    Raises:
        UserError: unknown group.
    """
    parser = _Parser(
        prog=f"repro {command}",
        description="Everything that has a name: use it in configs and on the command line. Nothing is imported.",
    )
    parser.add_argument("group", nargs="?", metavar="GROUP", help=f"one of {', '.join(_groups())}; all by default")
    listed = rows(parser.parse_args(arguments).group)
    if sys.stdout.isatty():
        _print_table(listed)
    else:
        say(*("\t".join(cells) for cells in [_COLUMNS, *(row.cells() for row in listed)]))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; give at most one of {', '.join(_groups())}")
