"""jsonargparse's messages, which run over many lines, told in one: what is wrong where, and what to type instead."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from repro import registry
from repro.cli.classes import GROUP_OF, class_of, group_of, options_of, settings_of
from repro.errors import UserError, nearest, unknown

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


def _unknown_key(place: _Place, name: str) -> str:
    legal = list(place.legal())
    if place.owner is None:
        root, dot, rest = name.partition(".")
        near = nearest(name, [key for key in legal if key.startswith(f"{root}.")] or legal)
        if dot and (known := nearest(root, {key.partition(".")[0] for key in legal})) not in (None, root):
            near = f"{known}.{rest}"
        guess = f"; did you mean --{near}?" if near else ""
        return f"unknown option --{name}{guess} (list them: {place.parser.prog} --help)"
    owner = place.owner.__name__
    if owner in GROUP_OF:
        return f"{place.below(name)} is given, but not of which class; type {place.option} NAME first"
    return str(unknown(f"key {place.below(name)}: {owner} has no argument", name, legal))


def _unknown_class(place: _Place, name: str) -> str:
    named = group_of(place.hint())
    if named is None:
        near = nearest(name, _subclasses(place.hint()))
        guess = f"; did you mean {near!r}?" if near else ";"
        return f"{place.key}: no class {name!r}{guess} other classes by their import path, package.module.{name}"
    group = named[0]
    if name in registry.names(group):
        try:
            registry.load(group, name)
        except UserError as error:
            return f"{place.key}: {error}"
    kind, last = group.removesuffix("s"), place.key.rpartition(".")[2]
    kind = kind if kind == last else f"{kind} for {place.key}"
    return str(unknown(kind, name, registry.names(group), f"list them: repro plugins {group}"))


def _subclasses(hint: Any) -> set[str]:
    """Names of the classes below those in a type hint."""
    found: set[str] = set()
    waiting = [hint]
    while waiting:
        each = waiting.pop()
        waiting += getattr(each, "__args__", ())
        if isinstance(each, type) and each is not type(None) and each is not object:
            found.add(each.__name__)
            waiting += each.__subclasses__()
    return found


def _missing(place: _Place, names: str) -> str:
    if place.owner is None:
        return f"{place.parser.prog} needs {names}; give --config FILE, or --{names.partition(',')[0]} NAME"
    first = names.partition(",")[0]
    option = f"--{place.below(first)} VALUE"
    about = " ".join((getattr(place.legal().get(first), "help", None) or "").split()).rstrip(".")
    told = f" ({first}: {about[0].lower()}{about[1:]})" if about else ""
    return f"{place.key} ({place.owner.__name__}) needs {names}; give {option}, or --config FILE that has them{told}"


def _wrong_value(place: _Place, reasons: Iterable[str], given: str | None) -> str | None:
    legal = []
    for reason in reasons:
        found = re.match(r"(?:- )?Expected a[n]? (.*?)(?:\. Got value: (.*))?$", reason)
        if found is None:
            return None
        hint, given = found[1], found[2] if found[2] is not None else given
        if choices := re.match(r"typing\.Literal\[(.*)\]$", hint):
            legal.append(f"one of {choices[1]}")
        else:
            name = re.sub(r"<class '(.*)'>", r"\1", hint).partition("[")[0].rpartition(".")[2]
            legal.append(_TYPES.get(name, hint))
    legal.sort(key=lambda text: text == "null")
    is_given = "has a value of the wrong type" if given is None else f"is {given!r}"
    return f"{place.key} {is_given}; give {' or '.join(dict.fromkeys(legal))}"


def _unrecognized(place: _Place, words: str) -> str:
    first = words.split()[0]
    if not first.startswith("-"):
        return f"unexpected {first!r}; options are written --key value (list them: {place.parser.prog} --help)"
    return _unknown_key(_Place(place.parser, "", None), first.lstrip("-").partition("=")[0])


_RULES: list[tuple[str, Callable[..., str]]] = [
    (r"unrecognized arguments: (.*)", _unrecognized),
    (r"Option '([^']*)' is not accepted.*", _unknown_key),
    (r"Group '([^']*)' does not accept option '([^']*)'", lambda p, group, name: _unknown_key(p, f"{group}.{name}")),
    (r"(?:- )?Expected a dot import path string: (\S+)", _unknown_class),
    (r"the following arguments are required: (.*)", _missing),
    (
        r"--(\S+)\.help: .*: (\S+)",
        lambda p, key, name: _unknown_class(_Place(p.parser, key, None), name),
    ),
    (
        r"(?:- )?Expected an instantiatable class, but (\S+) is abstract",
        lambda p, path: f"{p.key} names no class; type {p.option} NAME, with its arguments under init_args",
    ),
    (
        r"Import path (\S+) does not correspond to a subclass of (\S+)",
        lambda p, path, base: _unknown_class(p, path.rpartition(".")[2]),
    ),
    (r"Not a valid subclass of (\S+)\. Got value: (.*)", lambda p, base, given: _unknown_class(p, given)),
    (r"Unable to load config (.*)", lambda p, given: f"--{p.key} {given} is no setting; type --{p.key}.KEY VALUE"),
    (r"argument (\S+): expected .*argument.*", lambda p, option: f"{option.split('/')[-1]} needs a value"),
    (r"(No module named .*|cannot import .*|module .* has no attribute .*)", lambda p, why: f"{p.key}: {why}"),
]


def _innermost(message: str) -> list[str]:
    """What a nested message says at its deepest level, one reason a line."""
    lines = [line for line in message.splitlines() if line.strip()]
    marks = [index for index, line in enumerate(lines) if _MARK.match(line)]
    if marks:
        mark = lines[marks[-1]]
        rest = _MARK.sub("", mark).strip()
        lines = itertools.takewhile(lambda line: _indent(line) > _indent(mark), lines[marks[-1] + 1 :])
        lines = [rest, *lines] if rest else lines
    reasons = [line.strip() for line in lines]
    return [line for line in reasons if line and not _NOISE.match(line)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def one_line(parser: Any, message: str) -> UserError:
    """The user's error that a message of jsonargparse stands for.

    Args:
        parser: The parser that refused.
        message: Its message, of any number of lines.
    """
    keys = [key for key, _ in itertools.groupby(re.findall(r'Parser key "([^"]+)"', message))]
    paths = re.findall(r"Problem with given class_path '([^']+)'", message)
    place = _Place(parser, ".".join(keys), _import(paths[-1]) if paths else None)
    reasons = _innermost(message)
    for reason in reasons:
        for pattern, tell in _RULES:
            if found := re.fullmatch(pattern, reason):
                return UserError(tell(place, *found.groups()))
    given = re.findall(r"Given value: (?!NestedArg|Namespace|\{)(.*)", message)
    told = _wrong_value(place, reasons, given[-1] if given else None) if reasons else None
    return UserError(told or f"{place.key + ': ' if place.key else ''}{' '.join(reasons or message.split())}")


def _import(path: str) -> type | None:
    try:
        return class_of(path)
    except (ImportError, AttributeError, ValueError):
        return None
