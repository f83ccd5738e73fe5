"""What the source file of a plug-in says about it, read without executing anything."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from repro.errors import UserError, nearest

__all__ = ["first_line_of", "package_folder"]

_MOST_HOPS = 8


def _find(module: str) -> ModuleSpec | None:
    """The spec of a module; unlike ``importlib.util.find_spec`` it imports no parent package."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name, where = f"{name}.{part}", spec.submodule_search_locations
        candidates = (finder.find_spec(name, where) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((each for each in candidates if each is not None), None)
    return spec


def package_folder(package: str) -> Path:
    """Finds the folder of a package, or of a folder of data inside one, importing nothing.

    Raises:
        UserError: there is no such package.
    """
    top, *rest = package.split(".")
    spec = _find(top)
    for location in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(location, *rest)).is_dir():
            return folder
    raise UserError(f"no package named {package!r}")


@functools.cache
def _tree(module: str) -> tuple[ast.Module | None, bool]:
    """The syntax tree of a module, None when it has no source; and whether it is a package."""
    spec = _find(module)
    if spec is None:
        raise UserError(f"no module named {module!r}")
    package = spec.submodule_search_locations is not None
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None, package
    stub = Path(spec.origin).with_suffix(".pyi")  # names that a package imports only when they are asked for
    try:
        return ast.parse((stub if stub.is_file() else Path(spec.origin)).read_bytes(), spec.origin), package
    except SyntaxError as error:
        raise UserError(f"{spec.origin}, line {error.lineno}: {error.msg}") from error
    except OSError as error:
        raise UserError(f"cannot read {spec.origin}: {error.strerror}") from error


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that importing a module runs, those inside ``if``, ``try`` and ``with`` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _check_imports(tree: ast.Module, module: str) -> None:
    """Raises UserError when the module imports a package, without a ``try``, that is not installed."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            wanted = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            wanted = [statement.module or ""]
        else:
            continue
        for name in wanted:
            top = name.partition(".")[0]
            if top not in sys.modules and _find(top) is None:
                raise UserError(f"{module} imports {name!r}, which is not installed")


def _absolute(statement: ast.ImportFrom, module: str, package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - statement.level + package]
    return ".".join([*base, statement.module] if statement.module else base)


def first_line_of(target: str) -> str:
    """Returns first line of the docstring of an entry point's object.

    Args:
        target: As in an entry point, ``package.module:Name``.

    Returns:
        The line in plain text; empty when there is none, or the module has no source file.

    Raises:
        UserError: nothing is there: no such module, no such name in it, a syntax error, or a package that it
            imports is not installed.

    Example:
        >>> first_line_of("repro.kernels:Kernel")
        'Base of the perturbation kernels; a new one defines log_alpha and sigma.'
    """
    module, _, name = target.partition(":")
    for _ in range(_MOST_HOPS):
        tree, package = _tree(module)
        if tree is None:
            return ""
        _check_imports(tree, module)
        known = {each: statement for statement in _statements(tree.body) for each in _names(statement)}
        if name not in known:
            if "__getattr__" in known:
                return ""
            near = nearest(name, known)
            raise UserError(f"{module} has no {name!r}{f'; did you mean {near!r}?' if near else ''}")
        statement = known[name]
        if not isinstance(statement, ast.ImportFrom):
            break
        alias = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
        module, name = _absolute(statement, module, package), alias.name
    text = ast.get_docstring(statement) if isinstance(statement, ast.ClassDef | ast.FunctionDef) else None
    line = (text or "").strip().partition("\n")[0]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", line).replace("``", "").replace("\\", "")
