"""Signals that ask the program to stop: one owner for SIGINT, SIGTERM and SIGUSR1, whatever runs.

A scheduler sends SIGTERM or SIGUSR1 before it takes the machine away, a user SIGINT (Ctrl-C). The first of them raises
:class:`Interrupted` where the program is; a training, which holds it, first ends its step and saves its state. A second
one ends the program at once. What follows within two seconds is the same wish, heard again: a terminal or a scheduler
signals all processes of a study, and the one that started them hands it on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "hold", "owned", "pending", "release"]

_SAME_WISH = 2.0
_OWNED = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Interrupted(BaseException):
    """Raised when the program was asked to stop at a point where nothing is half-done.

    It is no ``Exception`` and no ``KeyboardInterrupt``, which Lightning takes for a wish to leave with exit code 1.

    Args:
        number: The signal.
        hint: What to type next.

    Attributes:
        code: The exit code that a shell expects: 128 plus the signal's number.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint)
        self.number, self.hint, self.code = number, hint, 128 + number


class _State:
    owned = False
    held = False
    received: int | None = None
    received_at = 0.0


@contextmanager
def owned() -> Iterator[None]:
    """Handles the signals inside, and gives them back afterwards; in a thread other than the main one does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _OWNED}
    _State.owned, _State.held, _State.received = True, False, None
    _install()
    try:
        yield
    finally:
        _State.owned = _State.held = False
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def hold() -> None:
    """Keeps a signal back from now on, for :func:`pending` to tell; without effect outside of :func:`owned`.

    The handlers are installed anew, in place of those that Lightning has put there (its requeueing on SLURM saves in
    another place, which nothing here would look at).
    """
    if _State.owned:
        _State.held = True
        _install()


def release() -> None:
    """Lets signals raise again where the program is."""
    _State.held = False


def pending() -> int | None:
    """Returns the signal that was received while it was held; None when there was none."""
    return _State.received if _State.held else None


def _install() -> None:
    for number in _OWNED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if _State.received is not None:
        if time.monotonic() - _State.received_at < _SAME_WISH:
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _State.received, _State.received_at = number, time.monotonic()
    if not _State.held:
        raise Interrupted(number)
