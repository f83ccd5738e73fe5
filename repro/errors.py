"""A user's mistake, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import get_args

__all__ = ["Outside", "UserError", "check_above", "check_at_least", "check_choice", "nearest", "unknown"]


class UserError(ValueError):
    """A mistake that the user can mend: the command line prints it as one line and leaves with exit code 2.

    The message says what was given, what is legal, the nearest match, and what to type.

    Example:
        >>> raise UserError("batch_size is 0; give at least 1")
        Traceback (most recent call last):
        repro.errors.UserError: batch_size is 0; give at least 1
    """


class Outside(UserError):
    """A file names something outside of itself, such as a path, and the user has not asked to have it read."""


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """Returns the known name most like the given one, ignoring case, or None when nothing is close.

    Example:
        >>> nearest("SongUnt", ["UViT", "SongUNet"])
        'SongUNet'
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wanted.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def unknown(kind: str, wanted: str, known: Iterable[str], hint: str = "") -> UserError:
    """Makes the error for a name that is not among the known ones, with the nearest of them.

    Args:
        kind: What the name stands for, in the singular ("kernel").
        wanted: The name that was given.
        known: Every legal name.
        hint: What to type to see more; appended as it is.

    Example:
        >>> print(unknown("kernel", "VB", ["VP", "VE"]))
        unknown kernel 'VB'; did you mean 'VP'? known: VP, VE
    """
    known = list(known)
    near = nearest(wanted, known)
    guess = f"; did you mean {near!r}?" if near else ";"
    more = f" ({hint})" if hint else ""
    return UserError(f"unknown {kind} {wanted!r}{guess} known: {', '.join(known) or 'none'}{more}")


def check_choice(argument: str, value: str | None, literal: object) -> None:
    """Raises a UserError unless a value is one of those of a Literal type; None is left out.

    Example:
        >>> from typing import Literal
        >>> check_choice("solver", "hun", Literal["heun", "euler"])
        Traceback (most recent call last):
        repro.errors.UserError: unknown solver 'hun'; did you mean 'heun'? known: heun, euler
    """
    if value is not None and value not in get_args(literal):
        raise unknown(argument, value, get_args(literal))


def check_at_least(least: float, of: str = "", **numbers: float | None) -> None:
    """Raises a UserError that names the first number below ``least``, not a number, or beyond 64 bits.

    Args:
        least: The smallest legal number.
        of: What the numbers are arguments of, where the message is to say so.
        **numbers: By the name of the argument; None is left out.

    Example:
        >>> check_at_least(1, of="GAN", width=0)
        Traceback (most recent call last):
        repro.errors.UserError: width of GAN is 0; give at least 1
    """
    for name, value in numbers.items():
        if value is not None and not (value >= least and (isinstance(value, float) or value < 2**63)):
            raise UserError(f"{_is(name, value, of)}; give at least {least}")


def check_above(limit: float, of: str = "", **numbers: float | None) -> None:
    """Raises a UserError that names the first number that is not above a limit; see :func:`check_at_least`."""
    for name, value in numbers.items():
        if value is not None and not value > limit:
            raise UserError(f"{_is(name, value, of)}; give a number above {limit}")


def _is(name: str, value: float, of: str) -> str:
    return f"{name}{of and f' of {of}'} is {f'{value:g}' if isinstance(value, float) else value}"
