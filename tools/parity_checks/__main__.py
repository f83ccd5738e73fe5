"""Compares repro with recorded outputs of reference implementations.

Each fixture is a folder with ``meta.json`` (project, class, settings, tolerances), ``io.safetensors`` (inputs, expected
outputs) and usually ``weights.safetensors``. For each one line says its verdict, the output that comes closest to its
tolerance (or is furthest beyond), that output's largest error, the tolerance at that place, and the error as a part of
what is allowed. Networks run in float32. Exit code 0 only if every fixture passes, 1 if one does not, 2 if there is
none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from parity_checks.checks import Result, run_fixture
from parity_checks.fixture import Check
from repro.errors import UserError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``tools/parity``; returns its exit code."""
    parser = argparse.ArgumentParser(prog="tools/parity", description=__doc__.replace("``", ""))
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a fixture, or a folder of fixtures")
    parser.add_argument("--verbose", action="store_true", help="one line for each output too")
    options = parser.parse_args(arguments)
    try:
        folders = [fixture for folder in options.folders for fixture in _fixtures(folder)]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    results = []
    for folder in folders:
        result = run_fixture(folder)
        results.append(result)
        print("\n".join(_lines(result, options.verbose)), flush=True)
    print(_summary(results))
    return 0 if all(result.verdict == "pass" for result in results) else 1


def _fixtures(folder: Path) -> list[Path]:
    found = sorted(meta.parent for meta in folder.rglob("meta.json"))
    if not found:
        raise UserError(f"no fixture in {folder}: give a folder with meta.json, or a folder of such folders")
    return found


def _lines(result: Result, verbose: bool) -> Iterator[str]:
    worst = max(result.checks, key=lambda check: check.part, default=None)
    text = _numbers(worst) if worst else ""
    yield f"{result.verdict:8}{result.name:32}" + "  ".join(filter(None, [text, result.reason]))
    for check in result.checks if verbose else ():
        yield f"        {'pass' if check.passed else 'FAIL':8}{_numbers(check)}"


def _numbers(check: Check) -> str:
    return f"{check.name:28} error {check.error:.2e}  tolerance {check.allowed:.2e}  {check.part:8.3%} of allowed"


def _summary(results: list[Result]) -> str:
    passed = sum(result.verdict == "pass" for result in results)
    parts = [f"{passed} of {len(results)} fixtures pass"]
    for verdict in ("FAIL", "unknown"):
        names = [result.name for result in results if result.verdict == verdict]
        parts += [f"{verdict}: {', '.join(names)}"] if names else []
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
