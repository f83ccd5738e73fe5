"""A progress bar that shows itself only when the work turns out to be long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.errors import LiveError
from rich.progress import Progress

__all__ = ["slow_progress"]

_REFRESH = 0.1


@contextmanager
def slow_progress(what: str, total: int, patience: float = 2.0) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with how much is done; after ``patience`` seconds a bar on stderr shows it.

    Only rank 0 draws, on a terminal, and never inside another bar.

    Args:
        what: What is being done ("decoding cifar.zip").
        total: How much there is to do.
        patience: Seconds of silence.

    Example:
        >>> with slow_progress("counting", 3) as done:
        ...     for i in range(3):
        ...         done(i + 1)
    """
    begin = shown = time.monotonic()
    bar: Progress | None = None

    def done(amount: int) -> None:
        nonlocal bar, shown
        now = time.monotonic()
        if now - begin < patience or now - shown < _REFRESH or getattr(rank_zero_only, "rank", 0) != 0:
            return
        if bar is None:
            console = Console(stderr=True)
            bar = Progress(console=console, transient=True, disable=not console.is_terminal)
            bar.add_task(what, total=total)
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
