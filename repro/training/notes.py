"""Lightning's notes, such as which accelerators are not there: nothing that a user here can act on."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

__all__ = ["quietly", "without_notes"]

_NOTES = (
    r".*does not have many workers",
    r".*LeafSpec. is deprecated",
    r".*isinstance\(treespec",
    r"The number of training batches .* is smaller than the logging interval",
    r"Experiment logs directory .* exists and is not empty",
    r"Checkpoint directory .* exists and is not empty",
    r"Total length of `DataLoader` across ranks is zero",
    r"The `srun` command is available on your system but is not used",
    r"Found \d+ module\(s\) in eval mode at the start of training",
)
P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Keeps Lightning's notes off the screen while the block runs; its other warnings and its errors still come."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            for text in _NOTES:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quietly(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function that does the same :func:`without_notes`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with without_notes():
            return function(*args, **kwargs)

    return run
