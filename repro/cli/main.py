"""The command ``repro``: knows its subcommands by name and imports only the one that is asked for."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from repro.errors import UserError, nearest
from repro.files import say
from repro.training import signals

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "fit": ("repro.cli.lightning", "train a model on images"),
    "validate": ("repro.cli.lightning", "loss of a trained model on held-out images"),
    "test": ("repro.cli.lightning", "score a model on the images it draws from numbered noises"),
    "predict": ("repro.cli.lightning", "draw images from numbered noises into a sample bank"),
    "compare": ("repro.cli.compare", "how alike models are, and how much they memorise"),
    "encode": ("repro.cli.encode", "the noises that models give to images, and how alike they are"),
    "study": ("repro.cli.study", "run an experiment of the paper, or go on with it"),
    "import": ("repro.cli.import_", "keep the model of an author-released checkpoint as a run"),
    "new": ("repro.cli.new", "write a package of plug-ins to install and to change"),
    "plugins": ("repro.cli.plugins", "list everything that has a name, built in or installed"),
}
_INTERRUPTED = 130
_MISTAKE = 2
_PARTNER_GONE = ("closed by peer", "reset by peer", "was likely closed", "NCCL communicator was aborted")
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  repro {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: repro COMMAND [options]",
            "",
            "Do different generative models learn the same thing? Train, import and sample any family of image",
            "models from the same numbered noises, and measure how alike they are and how much they memorise.",
            "",
            *lines,
            "",
            "  repro COMMAND --help  what a command takes; every constructor argument is an option and a config key",
            "  repro --version       the installed version",
            "",
            "For example: repro fit --config edm_cifar; repro predict --seeds 0-999; repro compare A B",
        ]
    )


def _dispatch(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        say(*_help().split("\n"))
        return 0
    if command == "--version":
        from importlib.metadata import version

        say(f"repro {version('repro')}")
        return 0
    if command not in COMMANDS:
        near = nearest(command, COMMANDS)
        guess = f"; did you mean 'repro {near}'?" if near else ";"
        raise UserError(f"unknown command {command!r}{guess} commands: {', '.join(COMMANDS)}")

    if command in ("plugins", "new"):
        return importlib.import_module(COMMANDS[command][0]).run(command, rest)
    from repro.cli.startup import import_lightning

    import_lightning()
    from repro.cli.quiet import quiet

    with quiet():
        return importlib.import_module(COMMANDS[command][0]).run(command, rest)


def _unwritable(error: BaseException) -> UserError | None:
    """The one line for a disk that is full or a place that may not be written, wherever that was noticed."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        where = error.filename or "a file or the output"
        return UserError(f"cannot write {where}: {error.strerror}; make room, or name another folder")
    return None


def _left_alone(error: BaseException) -> UserError | None:
    """The one line for a process whose partners in a distributed run are gone; the first of them says why."""
    text = str(error)
    if isinstance(error, RuntimeError) and any(sign in text for sign in _PARTNER_GONE):
        return UserError("another process of this run has ended, so this one ends too; its own last line says why")
    return None


def _port_in_use(error: BaseException) -> UserError | None:
    """The one line for a distributed run whose processes cannot meet, because another program has their port."""
    if isinstance(error, RuntimeError) and "EADDRINUSE" in str(error):
        port = os.environ.get("MASTER_PORT", "where the processes meet")
        return UserError(f"port {port} is used by another program on this machine; give a free one: MASTER_PORT=29501")
    return None


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake that an exception stands for: itself, or what it was raised from."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _leave_stdout() -> None:
    """Lets what is still to be printed go nowhere, so that the process ends with its own exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words after ``repro``; those of the process by default.

    Returns:
        The exit code: 0, 2 for a user's mistake (told in one line on stderr), or 128 plus the number of the signal that
        stopped it: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1. A bug raises.

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        repro 0.1.0
        0
    """
    try:
        with signals.owned():
            code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
        return code
    except signals.Interrupted as stop:
        how = "interrupted" if stop.number == signal.SIGINT else f"stopped by {signal.Signals(stop.number).name}"
        say(f"repro: {how}{f'; {stop.hint}' if stop.hint else ''}", aside=True)
        return stop.code
    except KeyboardInterrupt as stop:
        say(f"repro: interrupted{f'; {stop}' if str(stop) else ''}", aside=True)
        return _INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except Exception as error:
        mistake = _user_error(error) or _unwritable(error) or _port_in_use(error) or _left_alone(error)
        if mistake is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:  # the output itself goes to a disk that is full
            _leave_stdout()
        say(f"repro: error: {' '.join(str(mistake).split())}", aside=True)
        return _MISTAKE
