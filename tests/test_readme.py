"""The Python example of README.md runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_it_stands(tmp_path):
    code = README.read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RP" in done.stdout
    assert (tmp_path / "runs/0/checkpoints/last.ckpt").is_file()


def test_it_is_short_and_its_links_lead_somewhere():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert [target for target in targets if not (README.parent / target).exists()] == []
