"""From argv to parsed settings: words and config files, each read once, names of classes replaced by the classes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from repro import registry
from repro.cli.configs import layers
from repro.cli.help import short_help
from repro.cli.messages import one_line
from repro.cli.schema import Slot, allow, options_of, settings_of, slot_of
from repro.errors import UserError, nearest, unknown
from repro.files import parse_yaml, say

__all__ = ["Parser", "Settings", "Word", "last", "split"]

_SPEC = {"class_path", "init_args", "dict_kwargs"}
_RECORD = {"group", "name", "args"}
_INNER = ("init_args", "class_path", "dict_kwargs")
_NOTHING = ("null", "None")
_FLAGS = {"--help", "--print_config", "--dry_run"}
_LONG = {"-c": "--config", "-h": "--help", "--dry-run": "--dry_run"}
_REST = """The rest:
  {prog} --help all: every option, those of lightning.Trainer included
  {prog} --model.help NAME: the options of a model; likewise --data.help NAME, --model.network.help NAME
  repro plugins: every name and what it is; repro plugins configs: the configs
Every option is also a key of a config file; --print_config writes one."""
_NULL = re.compile(r"--[^=]+=None")


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
        """The option and its value as one word of a command line."""
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
        if waiting is not None and waiting in several and not word.startswith("--") and word not in _LONG:
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
    """Returns the value that an option was last given, None where it was not.

    Example:
        >>> last(split(["--task", "a", "--task=b"]), "--task")
        'b'
    """
    return next((word.value for word in reversed(list(words)) if word.option == option), None)


class Settings:
    """What a command line and its config files say, in the order in which they say it.

    Args:
        parser: The command's parser, with its options.
    """

    def __init__(self, parser: Any) -> None:
        self._prog = parser.prog
        self._options = settings_of(parser)
        for action in self._options.values():
            slot_of(getattr(action, "_typehint", None))
        self._chosen: dict[str, type] = {}
        self._named: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._source = ""
        self._typed = True

    def read(self, words: Iterable[Word]) -> list[str]:
        """Makes the words for the parser: config files written out as JSON, classes by their import path.

        Raises:
            UserError: an option, key or class that does not exist, or a config file that cannot be read.
        """
        result = []
        for word in words:
            if word.option == "--config" and word.value is not None:
                named = {key: cls.__name__ for key, cls in self._chosen.items()}
                self._typed = word.typed
                for path, settings in layers(word.value, named):
                    self._source = f"config file {path}: " if path else ""
                    result.append(f"--config={json.dumps(self._mapping(settings, ''))}")
                self._source, self._typed = "", True
            else:
                result.append(self._word(word).text)
        return result

    def _word(self, word: Word) -> Word:
        key = word.option.removeprefix("--").removesuffix("+")
        if not word.option.startswith("--") or key in ("config", "help"):
            return word
        if key.endswith(".help") and key not in self._options:
            return self._help(word, key.removesuffix(".help"))
        parts = [part for part in key.split(".") if part not in _INNER]
        if "dict_kwargs" in key.split("."):
            return word
        hint = self._hint(parts)
        if hint is None or word.value is None or word.value in _NOTHING:
            return word
        where = ".".join(parts)
        value: Any = word.value
        if value.lstrip()[:1] in ("{", "["):
            value = parse_yaml(value, f"--{where}")
            return Word(word.option, json.dumps(self._value(value, hint, where)))
        named = self._value(value, hint, where)
        self._tell_of_kept(where)
        return word if named is value else Word(word.option, named)

    def _tell_of_kept(self, key: str) -> None:
        """Says which settings of a config's sampler another sampler keeps, as the number of its steps."""
        before, arguments = self._named.pop(key, ("", {}))
        cls = self._chosen.get(key)
        if cls is None or cls.__name__ == before or "samplers" not in registry.groups_of(cls):
            return
        kept = [f"{name} {value}" for name, value in arguments.items() if name in options_of(cls) and value is not None]
        if kept:
            sentence = f"{cls.__name__} keeps what the config says of {before}: {', '.join(kept)}"
            option = kept[0].partition(" ")[0]
            say(f"repro: {sentence}; to change it, type for example --{key}.{option} N", aside=True)

    def _help(self, word: Word, key: str) -> Word:
        slot = slot_of(self._hint(key.split(".")))
        chosen = slot and word.value and slot.choose(word.value, key)
        return Word(word.option, allow(chosen)) if chosen else word

    def _hint(self, parts: list[str]) -> Any:
        """Type hint of a dotted option; None where it has none, or where everything below is data.

        Raises:
            UserError: no such option.
        """
        for length in range(len(parts), 0, -1):
            top = ".".join(parts[:length])
            if top in self._options and not (parts[length:] and self._is_group(top)):
                return self._below(top, parts[length:])
        if self._is_group(".".join(parts)):
            return None
        raise self._no_option(".".join(parts))

    def _below(self, key: str, parts: list[str]) -> Any:
        hint = getattr(self._options[key], "_typehint", None)
        default = getattr(self._options[key], "default", None)
        for part in parts:
            slot = slot_of(hint)
            if slot is None:
                return None
            cls = self._class_at(key, slot, default)
            if cls is None:
                raise UserError(f"{key}.{part} is given, but not of which class; type --{key} NAME first")
            option = self._option(cls, part, key)
            if option is None:
                return None
            key, hint, default = f"{key}.{part}", option._typehint, option.default
        return hint

    def _class_at(self, key: str, slot: Slot, default: Any) -> type | None:
        """The class chosen for a key, or that of its default, or the only one that there is."""
        if key in self._chosen:
            return self._chosen[key]
        if isinstance(default, Mapping | Namespace) and "class_path" in default:
            return slot.choose(default["class_path"], key)
        closed = [base for base in slot.bases if dataclasses.is_dataclass(base)]
        return closed[0] if len(slot.bases) == len(closed) == 1 else None

    def _option(self, cls: type, name: str, key: str) -> Any:
        """The parser action of a constructor's argument; None for an argument that it takes without knowing it.

        Raises:
            UserError: the class has no such argument.
        """
        options = options_of(cls)
        if name in options:
            return options[name]
        raise unknown(f"key {key}.{name}: {cls.__name__} has no argument", name, options, self._source.rstrip(": "))

    def _no_option(self, name: str) -> UserError:
        legal = list(self._options)
        root, dot, rest = name.partition(".")
        near = nearest(name, [key for key in legal if key.startswith(f"{root}.")] or legal)
        if dot and (known := nearest(root, {key.partition(".")[0] for key in legal})) not in (None, root):
            near = f"{known}.{rest}"
        guess = f"; did you mean --{near}?" if near else ""
        return UserError(f"{self._source}unknown option --{name}{guess} (list them: {self._prog} --help)")

    def _mapping(self, settings: Mapping[str, Any], above: str) -> dict[str, Any]:
        """A config file's settings, or those of a group of options such as ``trainer``."""
        result = {}
        for name, value in settings.items():
            key = f"{above}.{name}".lstrip(".")
            if isinstance(value, Mapping) and self._is_group(key):
                result[name] = self._mapping(value, key)
            else:
                result[name] = self._value(value, self._hint(key.split(".")), key)
        return result

    def _is_group(self, key: str) -> bool:
        return any(option.startswith(f"{key}.") for option in self._options)

    def _value(self, value: Any, hint: Any, key: str) -> Any:
        """A value with the classes in it by their import paths; data as it is."""
        slot = slot_of(hint) if hint is not None else None
        if slot is None or value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list):
            return [self._value(item, hint, f"{key}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, str):
            return value if value in (*_NOTHING, "true", "false") else self._choose(value, slot, key)
        named = self._class_named(value, slot, key)
        if named is None:
            return self._arguments_only(value, slot, key)
        name, arguments = named
        path = self._choose(name, slot, key)
        if self._chosen.get(key) is None:
            raise UserError(f"{self._source}{key}: no class {name!r}; name one that is known")
        self._named[key] = (self._chosen[key].__name__, arguments)
        result = {"class_path": path, "init_args": self._arguments(arguments, self._chosen[key], key)}
        return result | ({"dict_kwargs": value["dict_kwargs"]} if "dict_kwargs" in value else {})

    def _class_named(self, value: Mapping[str, Any], slot: Slot, key: str) -> tuple[str, Mapping[str, Any]] | None:
        """Name and arguments of a ``{class_path, init_args}`` or ``{name, args}``; None for arguments alone."""
        for name, arguments, legal in (("class_path", "init_args", _SPEC), ("name", "args", _RECORD)):
            if name not in value or (name == "name" and not (slot.groups and set(value) <= legal)):
                continue
            beside = [str(each) for each in value if each not in legal]
            if beside:
                raise UserError(
                    f"{self._source}{key} has {beside[0]!r} beside {name}; write its arguments under {arguments}"
                )
            init = value.get(arguments) or {}
            if not isinstance(value[name], str) or not isinstance(init, Mapping):
                raise UserError(f"{self._source}{key}: {name} is a name, and {arguments} are a mapping of arguments")
            return value[name], init
        return None

    def _arguments_only(self, value: Mapping[str, Any], slot: Slot, key: str) -> Any:
        cls = self._class_at(key, slot, None)
        if cls is None:
            return value
        if dataclasses.is_dataclass(cls):
            allow(cls)  # jsonargparse names the class of a dataclass's arguments itself
        if set(value) <= {"init_args", "dict_kwargs"}:
            return dict(value) | {"init_args": self._arguments(value.get("init_args") or {}, cls, key)}
        return self._arguments(value, cls, key)

    def _arguments(self, arguments: Mapping[str, Any], cls: type, key: str) -> dict[str, Any]:
        result = {}
        for name, value in arguments.items():
            option = self._option(cls, str(name), key)
            result[name] = self._value(value, getattr(option, "_typehint", None), f"{key}.{name}")
        return result

    def _choose(self, name: str, slot: Slot, key: str) -> str:
        if not self._typed and not slot.registers(name):
            if slot.takes_text:
                return name
            raise UserError(
                f"{self._source}{key} is {name!r}, and a run's own config names registered classes only; where you "
                "trust that file, type --config FILE"
            )
        try:
            cls = slot.choose(name, key)
        except UserError as error:
            raise UserError(f"{self._source}{error}") from error
        if cls is None:
            self._chosen.pop(key, None)
            return name
        self._keep(key, cls)
        self._chosen[key] = cls
        return allow(cls)

    def _keep(self, key: str, cls: type) -> None:
        """Forgets what was chosen for arguments that another class at a key does not have."""
        if self._chosen.get(key) is not cls and not inspect.isabstract(cls):
            known = options_of(cls)
            gone = [k for k in self._chosen if k.startswith(f"{key}.") and k[len(key) + 1 :].split(".")[0] not in known]
            for each in gone:
                del self._chosen[each]


class Parser(LightningArgumentParser):
    """Lightning's parser, telling the user's mistakes in one line."""

    sections: Mapping[str, Mapping[str, str]] | None = None
    """What ``--help`` shows: title -> option -> what it is; None for all options, which ``--help all`` always shows."""

    def parse_command(self, words: Iterable[Word], **more: Any) -> Any:
        """Parses a whole command line, as :func:`split` gives it, with its config files."""
        words = list(words)
        asked = [word.value for word in words if word.option == "--help"]
        if asked:
            say(*self._help(asked[0] == "all").rstrip().split("\n"))
            raise SystemExit(0)
        return self.parse_args(Settings(self).read(words), **more)

    def _help(self, whole: bool) -> str:
        if whole or self.sections is None:
            return self.format_help()
        return short_help(self, self.sections, _REST.format(prog=self.prog))

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Parses words as jsonargparse does, but keeps a null that it has read once already."""
        if args is not None:
            args = [f"{word.removesuffix('None')}null" if _NULL.fullmatch(word) else word for word in args]
        return super().parse_args(args, *rest, **more)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the UserError that a message stands for; parsers of nested classes leave that to the outermost."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise one_line(self, message) from None
