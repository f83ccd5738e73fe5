"""The parser of the commands: settings read once, help that begins with what users set, mistakes in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from repro.cli.help import short_help
from repro.cli.messages import one_line
from repro.cli.settings import Settings, Word

__all__ = ["Parser"]

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
        """Parses a whole command line, as :func:`repro.cli.settings.split` gives it, with its config files."""
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
