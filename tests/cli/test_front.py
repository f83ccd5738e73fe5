"""The front of the command line: light, complete, and clear about what it does not know."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from commands import run_here

from repro.cli.main import COMMANDS
from repro.cli.source import first_line_of
from repro.errors import UserError
from repro.registry import entries, group_names


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["--version"], ["plugins", "kernels"]])
def test_answers_without_torch(words: list[str]) -> None:
    heavy = "torch", "lightning", "jsonargparse", "numpy"
    code = (
        "import json, sys; from repro.cli.main import main; code = main(sys.argv[1:]); "
        f"print(json.dumps([code, [name for name in {heavy} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_help_names_every_command() -> None:
    shown = run_here("--help")
    assert shown.code == 0
    assert all(f"repro {command} " in shown.out for command in COMMANDS)
    assert run_here().out == shown.out


def test_unknown_command_names_the_nearest() -> None:
    assert "did you mean 'repro predict'?" in run_here("predicct").mistake
    assert f"commands: {', '.join(COMMANDS)}" in run_here("xyzzy").mistake


def test_plugins_lists_every_entry_with_its_first_line() -> None:
    lines = [line.split("\t") for line in run_here("plugins").out.splitlines()]
    assert lines[0] == ["group", "name", "class", "package", "version", "about"]
    listed = [tuple(line[:5]) for line in lines[1:] if line[0] != "configs"]
    assert listed == [(e.group, e.name, e.target, e.package, e.version) for g in group_names() for e in entries(g)]
    about = {line[1]: line[5] for line in lines[1:]}
    assert about["VP"] == "Variance-preserving kernel with a noise rate linear in time."
    assert not any(line[5].startswith("BROKEN") for line in lines[1:])


def test_plugins_of_an_unknown_group() -> None:
    assert "did you mean 'kernels'?" in run_here("plugins", "kernel").mistake
    assert "unrecognized arguments: b" in run_here("plugins", "kernels", "b").mistake


def test_first_line_follows_imports_and_reports_what_is_missing() -> None:
    assert first_line_of("repro.banks.bank:Manifest") == first_line_of("repro.banks.manifest:Manifest") != ""
    with pytest.raises(UserError, match=r"no module named 'repro.nowhere'"):
        first_line_of("repro.nowhere:Thing")
    with pytest.raises(UserError, match=r"repro.kernels has no 'VPP'; did you mean 'VP'"):
        first_line_of("repro.kernels:VPP")


def test_help_of_fit_begins_with_what_users_set() -> None:
    made = run_here("fit", "--help")
    assert made.code == 0
    lines = made.out.splitlines()
    assert len(lines) < 90
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    for part in ("config", "model.network", "data", "data.batch_size", "trainer.max_steps", "model.lr", "output"):
        assert f"--{part}" in shown
    assert {"--trainer.precision", "--trainer.devices", "--ckpt_path", "--task"} <= set(shown)
    assert "--trainer.limit_val_batches" not in made.out
    assert "repro fit --help all" in made.out
    assert "--model.help NAME" in made.out
    assert run_here("fit", "-h").out == made.out


def test_help_all_and_help_of_a_class() -> None:
    whole = run_here("fit", "--help", "all").out
    for part in ("--trainer.limit_val_batches", "--model.help", "--data.help", "runs/NAME"):
        assert part in whole
    network = run_here("fit", "--model", "Diffusion", "--model.network.help", "UViT")
    assert network.code == 0
    assert "patch_size" in network.out


def test_help_of_predict_begins_with_its_own_options() -> None:
    shown = [line.split()[0] for line in run_here("predict", "--help").out.splitlines() if line.startswith("  --")]
    assert shown[0] == "--seeds"
    assert {"--sampler", "--output", "--ckpt_path"} <= set(shown[:12])
    assert [option for option in shown if option.startswith("--trainer.")] == shown[-3:]
