"""A command line as options with their values: the one reader of argv."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Word", "last", "split"]

_FLAGS = {"--help", "--print_config", "--dry_run"}
_LONG = {"-c": "--config", "-h": "--help", "--dry-run": "--dry_run"}


@dataclass(frozen=True)
class Word:
    """An option with its value, or a word without an option.

    Attributes:
        option: With its dashes, as in ``--data``; empty for a word without one.
        value: None for an option without a value.
        typed: Whether the user typed it; a config file that was not typed may name registered classes only.
    """

    option: str
    value: str | None
    typed: bool = True

    @property
    def text(self) -> str:
        """As one word of a command line."""
        if not self.option:
            return self.value or ""
        return self.option if self.value is None else f"{self.option}={self.value}"


def split(arguments: Iterable[str], several: Sequence[str] = ()) -> list[Word]:
    """Splits a command line into options with their values.

    Args:
        arguments: The words.
        several: Options that take any number of values, repeated or not; each comes once, last, as a JSON list.

    Example:
        >>> [word.text for word in split(["--metric", "A", "B", "-c", "x.yaml", "--metric=C"], ["--metric"])]
        ['--config=x.yaml', '--metric=["A", "B", "C"]']
    """
    result: list[Word] = []
    lists: dict[str, list[str]] = {}
    waiting: str | None = None
    for word in arguments:
        if waiting in several and not word.startswith("--") and word not in _LONG:
            lists[waiting].append(word)
            continue
        if waiting is not None and waiting not in several:
            if not word.startswith("--"):
                result.append(Word(waiting, word))
                waiting = None
                continue
            result.append(Word(waiting, None))
        waiting = None
        name, equals, value = word.partition("=")
        name = _LONG.get(name, name)
        if name in several:
            waiting = name
            lists.setdefault(name, []).extend([value] if equals else [])
        elif name.startswith("--") and equals:
            result.append(Word(name, value))
        elif name.startswith("--") and name not in _FLAGS:
            waiting = name
        elif word == "all" and result and result[-1] == Word("--help", None):
            result[-1] = Word("--help", word)
        else:
            result.append(Word(name, None) if name.startswith("-") else Word("", word))
    if waiting is not None and waiting not in several:
        result.append(Word(waiting, None))
    return result + [Word(name, json.dumps(values)) for name, values in lists.items()]


def last(words: Iterable[Word], option: str) -> str | None:
    """The value that an option was last given, None where it was not.

    Example:
        >>> last(split(["--task", "a", "--task=b"]), "--task")
        'b'
    """
    return next((word.value for word in reversed(list(words)) if word.option == option), None)
