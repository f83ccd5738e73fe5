"""What each file of a package imports, inside functions too, and whether that keeps to an order of folders."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Sequence
from pathlib import Path


def rooms_in_order(readme: Path) -> list[list[str]]:
    """The folders of the code block ``order`` of a README, from the top down; those of one line stand side by side."""
    lines = readme.read_text().split("```order\n")[1].split("```")[0].splitlines()
    return [line.split("#")[0].split() for line in lines if line.split("#")[0].strip()]


def imports_of(package: Path) -> dict[str, set[str]]:
    """The modules of a package that each of its modules imports, as dotted names."""
    names = {_name(path, package): path for path in package.rglob("*.py")}
    return {name: set(_imported(path, name, names)) - {name} for name, path in names.items()}


def _name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, name: str, names: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                here = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
                start = ".".join([*here[: len(here) + 1 - node.level], *([start] if start else [])])
            wanted = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in wanted:
            while module and module not in names:
                module = module.rpartition(".")[0]
            if module:
                yield module


def against_the_order(imports: dict[str, set[str]], order: Sequence[Sequence[str]]) -> list[str]:
    """Each import of a folder that stands higher up, or beside; and each folder that the order does not name."""
    floor = {room: number for number, rooms in enumerate(order) for room in rooms}
    wrong = []
    for name, wanted in sorted(imports.items()):
        here = _room(name)
        if here is None:
            continue
        if here not in floor:
            wrong.append(f"{name}: the order does not name {here}")
            continue
        for other in sorted(wanted):
            there = _room(other)
            if there is not None and there != here and floor.get(there, -1) <= floor[here]:
                wrong.append(f"{name} imports {other}")
    return wrong


def _room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A circle of modules that import each other, empty when there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []
