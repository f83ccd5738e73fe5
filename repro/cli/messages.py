"""jsonargparse's messages, which run over many lines, told in one: what is wrong where, and what to type instead."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from repro.cli.schema import class_of, options_of, settings_of
from repro.errors import UserError, nearest

__all__ = ["one_line"]

_NOISE = re.compile(
    r"(Errors|Subtypes|Given value type|Given value):|Does not validate against any"
    r"|- Expected a path but .* either not accessible or invalid$|Subclass types expect one of|- a (class path|dict) "
)
_MARK = re.compile(r"""\s*(?:- )?(?:Parser key "[^"]+"(?: element \d+)?|Problem with given class_path '[^']*'):""")
_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
_TYPES |= {"list": "a list, [a, b]", "dict": "a mapping, {key: value}", "tuple": "a list, [a, b]"}


@dataclass
class _Place:
    """Where something is wrong: the option, the class whose argument it is, and the parser of the command."""

    parser: Any
    key: str
    owner: type | None

    @property
    def option(self) -> str:
        return f"--{self.key}"

    def below(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name

    def legal(self) -> dict[str, Any]:
        """Options at this place: those of the class, or of the whole command."""
        if self.owner is not None:
            return options_of(self.owner)
        return settings_of(self.parser)

    def hint(self) -> Any:
        """Type hint of the option itself."""
        name = self.key.rpartition(".")[2] if self.owner is not None else self.key
        return getattr(self.legal().get(name), "_typehint", None)


def _missing(at: _Place, names: str) -> str:
    if at.owner is None:
        return f"{at.parser.prog} needs {names}; give --config FILE, or --{names.partition(',')[0]} NAME"
    first = names.partition(",")[0]
    option = f"--{at.below(first)} VALUE"
    about = " ".join((getattr(at.legal().get(first), "help", None) or "").split()).rstrip(".")
    explained = f" ({first}: {about[0].lower()}{about[1:]})" if about else ""
    return f"{at.key} ({at.owner.__name__}) needs {names}; give {option}, or --config FILE that has them{explained}"


def _wrong_value(at: _Place, reasons: Iterable[str], value: str | None) -> str | None:
    legal = []
    for reason in reasons:
        match = re.match(r"(?:- )?Expected a[n]? (.*?)(?:\. Got value: (.*))?$", reason)
        if match is None:
            return None
        hint, value = match[1], match[2] if match[2] is not None else value
        if choices := re.match(r"typing\.Literal\[(.*)\]$", hint):
            legal.append(f"one of {choices[1]}")
        else:
            name = re.sub(r"<class '(.*)'>", r"\1", hint).partition("[")[0].rpartition(".")[2]
            legal.append(_TYPES.get(name, hint))
    legal.sort(key=lambda text: text == "null")
    is_given = "has a value of the wrong type" if value is None else f"is {value!r}"
    near = nearest(str(value), re.findall(r"'([^']+)'", " ".join(legal)))
    guess = f"; did you mean {near!r}?" if near else ""
    return f"{at.key} {is_given}; give {' or '.join(dict.fromkeys(legal))}{guess}"


def _unrecognized(at: _Place, words: str) -> str:
    first = words.split()[0]
    return f"unexpected {first!r}; options are written --key value (list them: {at.parser.prog} --help)"


_RULES: list[tuple[str, Callable[..., str]]] = [
    (r"unrecognized arguments: (.*)", _unrecognized),
    (r"the following arguments are required: (.*)", _missing),
    (
        r"(?:- )?Expected an instantiatable class, but (\S+) is abstract",
        lambda p, path: f"{p.key} names no class; type {p.option} NAME, with its arguments under init_args",
    ),
    (
        r"Not a valid subclass of (\S+)\. Got value: (.*)",
        lambda p, base, given: f"{p.key} is {given}; type {p.option} NAME, with its arguments under init_args",
    ),
    (r"Unable to load config (.*)", lambda p, given: f"--{p.key} {given} is no setting; type --{p.key}.KEY VALUE"),
    (
        r"(?:.*: )?Requirement '([\w.-]+)[^']*' not met.*",
        lambda p, name: f"{p.key or 'trainer'} needs {name}, which is not installed; type: pip install {name}",
    ),
    (r"argument (\S+): expected .*argument.*", lambda p, option: f"{option.split('/')[-1]} needs a value"),
]


def _innermost(message: str) -> list[str]:
    """What a nested message says at its deepest level, one reason a line."""
    lines = [line for line in message.splitlines() if line.strip()]
    marks = [index for index, line in enumerate(lines) if _MARK.match(line)]
    if marks:
        mark = lines[marks[-1]]
        rest = _MARK.sub("", mark).strip()
        inner = itertools.takewhile(lambda line: _indent(line) > _indent(mark), lines[marks[-1] + 1 :])
        lines = [rest, *inner]
    reasons = [line.strip() for line in lines]
    return [line for line in reasons if line and not _NOISE.match(line)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def one_line(parser: Any, message: str) -> UserError:
    """Turns a message of jsonargparse into the user's error, in one line.

    Args:
        parser: The parser that refused.
        message: Its message, of any number of lines.
    """
    keys = [key for key, _ in itertools.groupby(re.findall(r'Parser key "([^"]+)"', message))]
    paths = re.findall(r"Problem with given class_path '([^']+)'", message)
    at = _Place(parser, ".".join(keys), _import(paths[-1]) if paths else None)
    reasons = _innermost(message)
    for reason in reasons:
        for pattern, say in _RULES:
            if match := re.fullmatch(pattern, reason):
                return UserError(say(at, *match.groups()))
    values = re.findall(r"Given value: (?!NestedArg|Namespace|\{)(.*)", message)
    text = _wrong_value(at, reasons, values[-1] if values else None) if reasons else None
    return UserError(text or f"{at.key + ': ' if at.key else ''}{' '.join(reasons or message.split())}")


def _import(path: str) -> type | None:
    try:
        return class_of(path)
    except (ImportError, AttributeError, ValueError):
        return None
