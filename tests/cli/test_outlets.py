"""Names from strangers' files reach terminals and tables escaped, whichever command prints them."""

from __future__ import annotations

import ast
import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from commands import CONFIG, run_here
from image_files import encoded, pictures, write_folder

import repro
from repro.cli import plugins
from repro.data.progress import slow_progress
from repro.files import csv_text
from repro.registry import Entry

EVIL = "\x1b]0;evil\x07\u202e"
SHOWN = "\\x1b]0;evil\\x07\\u202e"
PACKAGE = Path(repro.__file__).parent


def safe(*texts: str) -> bool:
    return not any(each in text for text in texts for each in "\x1b\x07\u202e\r")


@pytest.fixture(scope="module")
def place(trained: Path) -> Path:
    """The workplace with a bank and a folder of classes whose names are made to do harm."""
    done = run_here("predict", "--ckpt_path", "runs/tiny", "--seeds", "0-3", "--output", f"=bank{EVIL}")
    assert done.code == 0, done
    assert safe(done.out, done.err)
    assert SHOWN in done.out
    files = {f"{name}{EVIL}/{i}.png": encoded(pictures(1, seed=i)[0]) for name in ("a", "=b") for i in range(4)}
    write_folder(trained / f"photos{EVIL}", files)
    torch.save({f"layer{EVIL}": torch.zeros(2)}, trained / f"strange{EVIL}.pth")
    checkpoint = torch.load(trained / "runs" / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["state_dict"] = {f"model.{name}{EVIL}": each for name, each in checkpoint["state_dict"].items()}
    torch.save(checkpoint, trained / "keys.ckpt")
    checkpoint["repro"]["model"]["record"]["args"][f"more{EVIL}"] = 1
    torch.save(checkpoint, trained / "record.ckpt")
    shutil.copytree(f"=bank{EVIL}", "odd")
    manifest = json.loads(Path("odd/manifest.json").read_text())
    Path("odd/manifest.json").write_text(json.dumps(manifest | {f"key{EVIL}": 1}))
    Path("name.yaml").write_text(yaml.safe_dump({"model": {"class_path": f"Diff{EVIL}"}}))
    Path("key.yaml").write_text(CONFIG + yaml.safe_dump({f"key{EVIL}": 1}))
    return trained


MISTAKES = {
    "a word": ("compare", f"no{EVIL}"),
    "a command": (f"no{EVIL}",),
    "a file that is not there": ("predict", "--ckpt_path", f"no{EVIL}.ckpt"),
    "a file of no format": ("import", f"strange{EVIL}.pth"),
    "names of weights": ("predict", "--ckpt_path", "keys.ckpt", "--seeds", "0", "--output", "none"),
    "a key of a record": ("predict", "--ckpt_path", "record.ckpt", "--seeds", "0", "--output", "none"),
    "a key of a manifest": ("compare", "odd", "odd", "--descriptor", "Pixels"),
    "a class in a config": ("fit", "--config", "name.yaml"),
    "a key in a config": ("fit", "--config", "key.yaml"),
    "a group of plug-ins": ("plugins", f"no{EVIL}"),
    "names of classes": ("fit", "--config", "tiny.yaml", "--data", "ImageArchive", "--data.path", f"photos{EVIL}",
                         "--data.classes", "cow", "--data.subset", "4"),
    "a study": ("study", f"no{EVIL}"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_error_lines_are_escaped(place: Path, what: str) -> None:
    mistake = run_here(*MISTAKES[what]).mistake
    assert safe(mistake), mistake
    assert "\\x1b" in mistake or what == "names of weights", mistake


@pytest.mark.filterwarnings("ignore:Glyph")  # a font has no sign for an escape character
def test_tables_and_csv_are_escaped(place: Path) -> None:
    done = run_here("compare", f"=bank{EVIL}", "odd_not", "--descriptor", "Pixels", "--output", "none")
    assert done.code == 2
    done = run_here("compare", f"=bank{EVIL}", f"=bank{EVIL}", "--descriptor", "Pixels", "--output", f"out{EVIL}",
                    "--names", f"@one{EVIL}", "$\\frac{two$")  # fmt: skip
    assert done.code == 0, done
    assert safe(done.out, done.err)
    assert "@one\\x1b]0;evil" in done.out
    for path in Path(f"out{EVIL}").rglob("*.csv"):
        text = path.read_text()
        assert safe(text), path
        cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
        assert not any(cell.startswith("@") for cell in cells), path
    assert f"'@one{SHOWN}" in Path(f"out{EVIL}/pairs.csv").read_text()


def test_what_a_training_says_is_escaped(place: Path) -> None:
    words = ("--data", "ImageArchive", "--data.path", f"photos{EVIL}", "--data.subset", "8", "--task", "conditional")
    done = run_here("fit", "--config", "tiny.yaml", *words, "--output", f"run{EVIL}")
    assert done.code == 0, done
    assert safe(done.out, done.err)
    assert f"2 classes: =b{SHOWN}, a{SHOWN}" in done.out


def test_plug_ins_are_listed_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = plugins.Row(Entry("kernels", f"K{EVIL}", f"m{EVIL}:K", f"p{EVIL}", "1"), f"about{EVIL}", "")
    monkeypatch.setattr(plugins, "rows", lambda group: [row])
    monkeypatch.setenv("TERM", "dumb")  # a table without colours of its own
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal, raising=False)
        assert plugins.run("plugins", []) == 0
        out = capsys.readouterr().out
        assert safe(out), out
        assert "\\x1b" in out


def test_a_name_that_looks_like_markup_stands_in_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with slow_progress("decoding [/x]", 3, patience=-1) as done:
        done(1)


def test_a_cell_is_no_formula() -> None:
    rows = [{"name": name} for name in ("=1", "+1", "-1", "@x", "\t=1", "\uff1d1", "plain", -1.5)]
    cells = csv_text(rows).splitlines()[1:]
    assert cells == ["'=1", "'+1", "'-1", "'@x", "'\\t=1", "'\uff1d1", "plain", "-1.5"]


def test_text_reaches_the_terminal_through_one_function() -> None:
    printing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "template" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"files/text.py"}
