"""A progress bar that shows itself only when the work turns out to be long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console
from rich.errors import LiveError
from rich.markup import escape
from rich.progress import Progress

from repro.files import printable, say

__all__ = ["LINE_SECONDS", "line", "slow_progress"]

LINE_SECONDS = 30.0
"""Seconds between two lines of progress where there is no terminal."""

_REFRESH = 0.1


def line(what: str, done: float, total: float, seconds: float, *more: str) -> str:
    """Writes one line of progress for a log: what, how much, per cent, rate a second, remarks, time left.

    Example:
        >>> line("drawing", 250, 1000, 10.0)
        'drawing: 250 of 1,000 (25 %), 25 a second, 0:00:30 left'
    """
    rate = done / seconds if seconds else 0.0
    left = timedelta(seconds=round((total - done) / rate)) if rate else "?"
    words = [f"{what}: {done:,} of {total:,} ({100 * done / max(total, 1):.0f} %)", f"{rate:.3g} a second", *more]
    return ", ".join([*words, f"{left} left"])


@contextmanager
def slow_progress(what: str, total: int, patience: float = 2.0) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with how much is done; after ``patience`` seconds a bar on stderr shows it.

    Only rank 0 draws, and never inside another bar. Where stderr is no terminal it is a line every half minute.

    Args:
        what: What is being done ("decoding cifar.zip").
        total: How much there is to do.
        patience: Seconds of silence.

    Example:
        >>> with slow_progress("counting", 3) as done:
        ...     for i in range(3):
        ...         done(i + 1)
    """
    begin = shown = logged = time.monotonic()
    bar: Progress | None = None
    terminal = Console(stderr=True).is_terminal

    def done(amount: int) -> None:
        nonlocal bar, shown, logged
        now = time.monotonic()
        if not terminal and now - logged >= LINE_SECONDS and getattr(rank_zero_only, "rank", 0) == 0:
            logged = now
            say(line(what, amount, total, now - begin), aside=True)
        if now - begin < patience or now - shown < _REFRESH or getattr(rank_zero_only, "rank", 0) != 0:
            return
        if bar is None:
            console = Console(stderr=True)
            bar = Progress(console=console, transient=True, disable=not console.is_terminal)
            bar.add_task(escape(printable(what)), total=total)
            try:
                bar.start()
            except LiveError:
                bar.disable = True
        bar.update(bar.task_ids[0], completed=amount)
        shown = now

    try:
        yield done
    finally:
        if bar is not None and not bar.disable:
            bar.stop()
