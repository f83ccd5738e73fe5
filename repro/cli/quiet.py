"""What Lightning says, and how it leaves when it is asked to stop, in one line each."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from repro.errors import UserError
from repro.files import say
from repro.training.notes import without_notes
from repro.training.signals import Interrupted

__all__ = ["quiet", "stoppable"]


def _one_sentence(record: logging.LogRecord) -> bool:
    """Lets through what Lightning says when a process that it launched has died, in words of ours."""
    died = re.search(r"Child process .* terminated with code (-?\d+)", record.getMessage())
    if died:
        record.msg, record.args = f"repro: error: a process of this run died (code {died[1]}); all others are ended", ()
    return died is not None


class _Outlet(logging.Handler):
    """Shows what this project logs as its warnings are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"repro: warning: {' '.join(record.getMessage().split())}", aside=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's notes off the screen; warnings, and what this project logs, take one line each."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        say(f"repro: warning: {' '.join(str(message).split())}", aside=True)

    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)
    launcher.addFilter(_one_sentence)
    with without_notes():
        if rank_zero_only.rank:
            warnings.simplefilter("ignore")
        warnings.showwarning = show
        log, outlet = logging.getLogger("repro"), _Outlet()
        log.addHandler(outlet)
        try:
            yield
        finally:
            log.removeHandler(outlet)


@contextlib.contextmanager
def stoppable(hint: Callable[[], str] = str) -> Iterator[None]:
    """Turns Lightning's way of leaving on Ctrl-C back into the interrupt that it was, and its refusals into UserError.

    Args:
        hint: Tells what to type next after an interrupt; asked when it has happened.
    """
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(stop.number, hint()) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(hint()) from None
    except SystemExit as leave:
        if not isinstance(leave.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt(hint()) from None
    except (MisconfigurationException, TypeError, ValueError) as error:
        if isinstance(error, UserError) or not _raised_by_lightning(error):
            raise
        raise UserError(f"trainer: {str(error).strip()}") from error


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself found a setting wrong, rather than code that it called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    # a TypeError of the loops may be a hook with other arguments than they pass: a bug, which keeps its traceback
    return module.startswith("lightning.fabric.accelerators." if isinstance(error, TypeError) else "lightning.")
