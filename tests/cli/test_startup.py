"""Lightning is imported without packages that nobody asked for, and nothing is missing afterwards."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from repro.cli.startup import _Finder

START = "import sys; from repro.cli.startup import import_lightning; import_lightning(); "


def fresh(code: str) -> str:
    """What a new process prints that imports Lightning and then runs some code."""
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True).stdout


def test_only_what_is_used_is_imported_and_the_rest_still_works() -> None:
    later = [name for name in ("scipy", "torchvision", "transformers") if importlib.util.find_spec(name)]
    code = (
        f"print([name for name in {later} if name in sys.modules]); "
        "import torch, torchmetrics; box = torch.tensor([[0.0, 0.0, 2.0, 2.0]]); "
        "print(torchmetrics.functional.detection.intersection_over_union(box, box / 2)); "
        "import torchvision; print(torchvision.ops.box_area(box))"
    )
    assert fresh(code).splitlines() == ["[]", "tensor(0.2500)", "tensor([4.])"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import shows, behind a stand-in."""
    (tmp_path / "slow_thing").mkdir()
    (tmp_path / "slow_thing" / "__init__.py").write_text("from slow_thing.inner import Inner\nbase = Inner\n")
    (tmp_path / "slow_thing" / "inner.py").write_text("class Inner:\n    size = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    finder = _Finder(["slow_thing"])
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield finder
    for name in ("slow_thing", "slow_thing.inner"):
        sys.modules.pop(name, None)


def test_a_name_is_real_as_soon_as_it_is_used(package: _Finder) -> None:
    from slow_thing import base
    from slow_thing.inner import Inner

    assert not hasattr(sys.modules["slow_thing"], "__file__")
    assert base().size == 3
    assert package.packages == set()
    assert isinstance(Inner(), Inner)

    class Child(Inner):
        pass

    assert Child.size == 3
    import slow_thing

    assert slow_thing.__file__
    assert issubclass(Child, slow_thing.Inner)


def test_a_module_passes_everything_on_once_it_is_given_back(package: _Finder) -> None:
    import slow_thing

    kept = slow_thing
    package.give_back("slow_thing")
    assert "slow_thing" not in sys.modules
    assert kept.inner.Inner.size == 3
