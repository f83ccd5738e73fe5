"""The direction of imports that repro/README.md states holds, inside functions too, and nothing imports in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest
from imports import against_the_order, circle, imports_of, rooms_in_order

import repro

PACKAGE = Path(repro.__file__).parent
ORDER = rooms_in_order(PACKAGE / "README.md")


def test_imports_keep_to_the_order():
    assert against_the_order(imports_of(PACKAGE), ORDER) == []


def test_nothing_imports_in_a_circle():
    assert circle(imports_of(PACKAGE)) == []


@pytest.fixture
def planted(tmp_path):
    """A small package in which a lower folder imports a higher one inside a function, and two files each other."""
    for name, text in {
        "top/a.py": "from small.bottom import b\n",
        "bottom/b.py": "def late():\n    from small.top.a import x\n",
        "bottom/c.py": "import small.bottom.d\n",
        "bottom/d.py": "from .c import y\n",
        "loose.py": "",
    }.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "small"


def test_a_planted_import_is_seen(planted):
    wrong = against_the_order(imports_of(planted), [["top"], ["bottom"]])
    assert wrong == ["small.bottom.b imports small.top.a", "small.loose: the order does not name loose"]


def test_a_planted_circle_is_seen(planted):
    (planted / "bottom" / "b.py").write_text("")
    assert set(circle(imports_of(planted))) == {"small.bottom.c", "small.bottom.d"}


def test_top_level_holds_the_glossary_only():
    glossary = {
        "devices",
        "errors",
        "images",
        "kernels",
        "noise",
        "parameterizations",
        "registry",
        "times",
    }
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert loose <= glossary, loose - glossary
