"""The command tools/parity: what it says of fixtures that pass, fail, are incomplete, or that it does not know."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

TESTS = Path(__file__).parent
SAMPLES = TESTS / "oracles" / "samplers" / "optimal_denoiser"
LIMIT = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture
def parity(monkeypatch, capsys):
    """Calls the command; gives its exit code and the lines that it printed."""
    monkeypatch.syspath_prepend(str(TESTS.parent / "tools"))
    monkeypatch.syspath_prepend(str(TESTS / "networks"))

    def call(*arguments):
        from parity_checks.__main__ import main

        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out.splitlines()

    return call


def sampled(folder, outputs=("D", "log_weights", "sampler_x0"), **meta):
    """A copy of the recorded fixture, under another folder name and with changed meta data."""
    shutil.copytree(SAMPLES, folder)
    given = json.loads((folder / "meta.json").read_text()) | meta
    given["tolerance"] = {"per_output": dict.fromkeys(outputs, LIMIT)}
    (folder / "meta.json").write_text(json.dumps(given))
    return folder


def recorded_network(folder, wrong=0.0, **settings):
    """A fixture of a small U-ViT with the recorded answer of the public code."""
    import recorded_transformers as recorded

    case = recorded.cases()["uvit"]
    x, level, labels = recorded.inputs(case)
    answer = recorded.outputs()["uvit"]
    meta = {"peer": "baofff/U-ViT", "class": "UViT", "constructor_kwargs": case["record"] | settings, "name": "network"}
    limit = {"atol": 2e-5 * answer.abs().max().item(), "rtol": 1e-5}
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps(meta | {"tolerance": {"per_output": {"out": limit}}}))
    save_file({name: tensor.float() for name, tensor in recorded.foreign(case).items()}, folder / "weights.safetensors")
    io = {"x": x.float(), "timesteps": level.float(), "t": level / 999, "out": answer + wrong * limit["atol"]}
    save_file(io | ({"y": labels} if labels is not None else {}), folder / "io.safetensors")
    return folder


def test_recorded_fixtures_pass_whatever_their_folder_is_called(parity, tmp_path):
    sampled(tmp_path / "edm_network")
    recorded_network(tmp_path / "inner" / "x")
    code, lines = parity("--verbose", tmp_path)
    assert code == 0
    assert [line.split()[:2] for line in lines if line[0] != " "][:2] == [
        ["pass", "optimal_denoiser"],
        ["pass", "network"],
    ]
    assert sum(line.startswith("  ") for line in lines) == 4
    assert lines[-1] == "2 of 2 fixtures pass"


def test_error_and_tolerance_are_those_of_the_worst_output(parity, tmp_path):
    folder = sampled(tmp_path / "a")
    io = load_file(folder / "io.safetensors")
    place = io["D"].abs().argmax()
    allowed = LIMIT["atol"] + LIMIT["rtol"] * io["D"].flatten()[place].abs().item()
    io["D"].view(-1)[place] += 3 * allowed
    save_file(io, folder / "io.safetensors")
    code, lines = parity(folder)
    verdict, name, output, *numbers = lines[0].split()
    assert (code, verdict, name, output) == (1, "FAIL", "optimal_denoiser", "D")
    assert float(numbers[1]) == pytest.approx(3 * allowed, rel=0.01)
    assert float(numbers[3]) == pytest.approx(allowed, rel=0.01)
    assert float(numbers[4].rstrip("%")) == pytest.approx(300, rel=0.01)
    assert lines[-1] == "0 of 1 fixtures pass; FAIL: optimal_denoiser"


@pytest.mark.parametrize("wrong", [0.5, 1.5])
def test_tolerance_is_the_line_between_pass_and_fail(parity, tmp_path, wrong):
    code, lines = parity(recorded_network(tmp_path / "a", wrong))
    assert (code, lines[0][:4]) == ((0, "pass") if wrong < 1 else (1, "FAIL"))


def test_settings_that_do_not_fit_the_weights_fail_in_one_line(parity, tmp_path):
    recorded_network(tmp_path / "a", depth=6)
    sampled(tmp_path / "b")
    code, lines = parity(tmp_path)
    assert (code, len(lines)) == (1, 3)
    assert "UserError" in lines[0]
    assert lines[1].startswith("pass")


def test_what_is_not_checked_is_said(parity, tmp_path):
    sampled(tmp_path / "a", peer="someone/else", name="foreign")
    sampled(tmp_path / "b", outputs=("D", "extra"), name="incomplete")
    code, lines = parity(tmp_path)
    assert code == 1
    assert [line[:8].strip() for line in lines[:2]] == ["unknown", "FAIL"]
    assert lines[1].endswith("not compared: extra")
    assert lines[2] == "0 of 2 fixtures pass; FAIL: incomplete; unknown: foreign"


def test_nan_and_other_shapes_fail(parity, tmp_path):
    from_fixture = sampled(tmp_path / "a")
    parity(from_fixture)
    fixture = sys.modules["parity_checks.fixture"].Fixture(from_fixture)
    right = fixture.io["D"].double()
    assert fixture.compare("D", right).part == 0
    assert not fixture.compare("D", torch.full_like(right, torch.nan)).passed
    assert not fixture.compare("D", right[:1]).passed


def test_folder_without_fixtures(parity, tmp_path):
    assert parity(tmp_path)[0] == 2
