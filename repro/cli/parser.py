"""What the commands on jsonargparse share: one-line errors, a quiet screen, short names of plug-ins."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from repro.cli.help import short_help
from repro.cli.messages import one_line
from repro.cli.settings import Settings
from repro.cli.words import Word
from repro.errors import UserError
from repro.training.signals import Interrupted

__all__ = ["Parser", "quiet", "stoppable"]

_NOISE = (
    r".*does not have many workers",
    r".*LeafSpec. is deprecated",
    r".*isinstance\(treespec",
    r"The number of training batches .* is smaller than the logging interval",
    r"Checkpoint directory .* exists and is not empty",
    r"Total length of `DataLoader` across ranks is zero",
    r"The `srun` command is available on your system but is not used",
    r"Found \d+ module\(s\) in eval mode at the start of training",
)


_REST = """The rest:
  {prog} --help all: every option, those of lightning.Trainer included
  {prog} --model.help NAME: the options of a model; likewise --data.help NAME, --model.network.help NAME
  repro plugins: every name and what it is; repro plugins configs: the configs
Every option is also a key of a config file; --print_config writes one."""
_NULL = re.compile(r"--[^=]+=None")


class Parser(LightningArgumentParser):
    """Lightning's parser, telling the user's mistakes in one line."""

    sections: Mapping[str, Mapping[str, str]] | None = None
    """What ``--help`` shows: title -> option -> what it is; None for all options, which ``--help all`` always shows."""

    def parse_command(self, words: Iterable[Word], **more: Any) -> Any:
        """Parses a whole command line, as :func:`repro.cli.words.split` gives it, with its config files."""
        words = list(words)
        asked = [word.value for word in words if word.option == "--help"]
        if asked:
            print(self._help(asked[0] == "all").rstrip())
            raise SystemExit(0)
        return self.parse_args(Settings(self).read(words), **more)

    def _help(self, whole: bool) -> str:
        if whole or self.sections is None:
            return self.format_help()
        return short_help(self, self.sections, _REST.format(prog=self.prog))

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Parses; a null read once on its way to a nested class stays a null."""
        if args is not None:
            args = [f"{word.removesuffix('None')}null" if _NULL.fullmatch(word) else word for word in args]
        return super().parse_args(args, *rest, **more)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the UserError that a message stands for; parsers of nested classes leave that to the outermost."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise one_line(self, message) from None


def _one_sentence(record: logging.LogRecord) -> bool:
    """Lets through what Lightning says when a process that it launched has died, in words of ours."""
    died = re.search(r"Child process .* terminated with code (-?\d+)", record.getMessage())
    if died:
        record.msg, record.args = f"repro: error: a process of this run died (code {died[1]}); all others are ended", ()
    return died is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's notes off the screen; warnings take one line each."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        print(f"repro: warning: {' '.join(str(message).split())}", file=sys.stderr)

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.setLevel(logging.INFO)
    launcher.addFilter(_one_sentence)
    with warnings.catch_warnings():
        for text in _NOISE:
            warnings.filterwarnings("ignore", message=text)
        if rank_zero_only.rank:
            warnings.simplefilter("ignore")
        warnings.showwarning = show
        yield


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
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, UserError) or not _raised_by_lightning(error):
            raise
        raise UserError(f"trainer: {str(error).strip()}") from error


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself found a setting wrong, rather than code that it called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("lightning.")
