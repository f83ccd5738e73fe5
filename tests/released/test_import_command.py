"""``repro import`` from the command line: a released file becomes a run that predict, compare and test take."""

from __future__ import annotations

import hashlib
import json
import os
import pickle

import pytest
import torch
import yaml
from containers import dit_checkpoint, edm_pickle, score_sde_checkpoint, state_dict_file

import repro
from repro.banks import Bank
from repro.cli.main import main
from repro.records import record_of
from repro.released.importing import import_file

SHORT = ("--sampler", "Euler", "--sampler.steps", "2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys):
    """Runs a command; gives its exit code and what it printed, checked to be one line on stderr for a mistake."""

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        if code == 2:
            assert err.startswith("repro: error: ")
            assert err.count("\n") == 1, err
        return code, out if code == 0 else err.removeprefix("repro: error: ").rstrip("\n")

    return run


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_import_predict_compare(here, said):
    released = edm_pickle(here / "edm-cifar10-32x32-uncond-ve.pkl", "edm_ncsnpp")
    digest = hashlib.sha256(released.read_bytes()).hexdigest()
    code, out = said("import", released, *SHORT)
    run = here / "runs/imported/edm-cifar10-32x32-uncond-ve"
    assert code == 0, out
    for told in (
        "edm: VEPrecond of SongUNet, averaged weights",
        "parameters, images 3x8x8, unconditional",
        "kernel EDM(sigma_min=0.02, sigma_max=100.0), Eps(condition='log_ratio'",
        "sampler Euler(steps=2)",
        f"sha256 {digest}",
        f"next: repro predict --ckpt_path {run.relative_to(here)} --seeds 0-999",
    ):
        assert told in out
    assert files_below(run) == [".lock", "checkpoints/last.ckpt", "config.yaml", "run.json"]
    status = json.loads((run / "run.json").read_text())
    assert (status["finished"], status["imported"]["sha256"]) == (True, digest)
    euler = record_of(repro.build("samplers", "Euler", steps=2))["args"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["sampler"] == {"class_path": "Euler", "init_args": euler}
    direct, kept = import_file(released).model, repro.load(run)
    assert digest in kept.origin
    assert torch.equal(kept.sample([3, 4], sampler=direct.sampler), direct.sample([3, 4]))

    other = score_sde_checkpoint(here / "checkpoint_8.pth", "score_sde_ncsnpp_vp")
    assert said("import", other, "--image_size", "8", *SHORT, "--output", "vp")[0] == 0
    code, out = said("predict", "--ckpt_path", run, "--seeds", "0-3")
    assert code == 0, out
    bank = Bank.open(run / "banks/unconditional_0-3")
    assert digest in bank.manifest.source
    assert torch.equal(bank.images[2:3], repro.load(run).sample([2]))
    code, out = said("compare", run, "vp", "--seeds", "0-3", "--descriptor", "Pixels", "--output", "matrix")
    assert code == 0, out
    assert "edm-cifar10-32x32-uncond-ve" in out


def test_released_files_are_read_where_a_checkpoint_is(here, said):
    for name in ("a", "b"):
        edm_pickle(here / f"{name}.pkl", "edm_residual_box" if name == "a" else "edm_skip_paths")
        code, out = said("predict", "--ckpt_path", f"{name}.pkl", "--seeds", "0-1", *SHORT)
        assert (code, f"bank: runs/imported/{name}/banks/unconditional_0-1" in out) == (0, True), out
    assert "sha256" in Bank.open("runs/imported/a/banks/unconditional_0-1").manifest.source
    code, out = said("compare", "a.pkl", "b.pkl", "--seeds", "5-6", "--descriptor", "Pixels", "--output", "matrix")
    assert code == 0, out
    assert [Bank.open(f"runs/imported/{name}/banks/unconditional_5-6").manifest.seeds for name in "ab"] == [[5, 6]] * 2
    code, told = said("predict", "--ckpt_path", state_dict_file(here / "uvit.pth", "uvit"), "--seeds", "0-1")
    assert (code, told.endswith("type --heads VALUE")) == (2, True), told


def test_a_second_import_takes_another_folder(here, said):
    released = dit_checkpoint(here / "train.pt", "dit")
    folders = []
    for _ in range(2):
        code, out = said("import", released, "--heads", "2", "--format", "dit")
        assert code == 0, out
        folders += [line.removeprefix("run: ") for line in out.splitlines() if line.startswith("run: ")]
        assert "assumed, since the file does not say: --null_class True --kernel DiscreteVP" in out
    assert folders == ["runs/imported/train", "runs/imported/train-2"]
    assert repro.load(folders[0]).fingerprint() == repro.load(folders[1]).fingerprint()
    assert repro.load(folders[0], weights="raw").fingerprint() != repro.load(folders[0]).fingerprint()


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


MISTAKES = [
    ((), "name the released file: repro import FILE (formats: repro import --help)"),
    (("none.pkl",), "there is no file none.pkl"),
    (("folder",), "folder is a folder; name the checkpoint file in it, for example folder/nnet_ema.pth"),
    (("empty.pkl",), "empty.pkl is empty"),
    (("picture.png",), "cannot read picture.png: it is an image; name the file with the weights"),
    (("evil.pkl",), "it names 'posix.system', which is not read; nothing of it was run"),
    (("cut.pkl",), "cannot read cut.pkl: damaged or cut off"),
    (("edm.pkl", "edm.pkl"), "one file at a time: edm.pkl or edm.pkl?"),
    (("edm.pkl", "--format", "emd"), "unknown format 'emd'; did you mean 'edm'?"),
    (("edm.pkl", "--format", "dit"), "edm.pkl is not of the format dit; it looks like edm: type --format edm"),
    (("edm.pkl", "--heads", "3"), "unknown option --heads"),
    (("edm.pkl", "--sampler", "Huen"), "unknown sampler 'Huen'; did you mean 'Heun'?"),
    (("edm.pkl", "--output", "folder"), "--output folder is not empty"),
    (("uvit.pth",), "uvit.pth does not say its heads (no published network has width 16); type --heads VALUE"),
    (("uvit.pth", "--heads", "two"), "heads is 'two'; give an integer"),
    (("uvit.pth", "--kernel", "VB", "--heads", "2"), "kernel is 'VB'; give one of "),
    (("cd.pt", "--channels_per_head", "16"), "image size (its network has 2 resolutions); type --image_size VALUE"),
]


def test_mistakes_are_one_line_and_leave_nothing(here, said):
    edm_pickle(here / "edm.pkl", "edm_residual_box")
    state_dict_file(here / "uvit.pth", "uvit")
    state_dict_file(here / "cd.pt", "consistency_blocks")
    (here / "folder").mkdir()
    state_dict_file(here / "folder/nnet_ema.pth", "uvit")
    (here / "empty.pkl").touch()
    (here / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (here / "evil.pkl").write_bytes(pickle.dumps({"ema": Evil()}))
    (here / "cut.pkl").write_bytes((here / "edm.pkl").read_bytes()[:-1000])
    before = files_below(here)
    for words, expected in MISTAKES:
        code, told = said("import", *words)
        assert (code, expected in told) == (2, True), (words, told)
    for words in (("predict", "--ckpt_path", "evil.pkl"), ("compare", "evil.pkl", "edm.pkl", "--seeds", "0")):
        code, told = said(*words)
        assert (code, "nothing of it was run" in told) == (2, True), told
    assert files_below(here) == before


def test_a_run_that_cannot_be_written_leaves_nothing(here, said, monkeypatch):
    edm_pickle(here / "edm.pkl", "edm_residual_box")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    code, told = said("import", "edm.pkl")
    assert code == 2
    assert "No space left on device" in told
    assert files_below(here) == ["edm.pkl"]


def test_help_lists_formats_and_the_options_of_a_file(here, capsys):
    assert main(["import", "--help"]) == 0
    page = capsys.readouterr().out
    for told in ("edm          NVlabs/edm", "--kernel, --image_size, --network", "repro import FILE --help"):
        assert told in page
    with pytest.raises(SystemExit):
        main(["import", str(state_dict_file(here / "uvit.pth", "uvit")), "--help"])
    page = capsys.readouterr().out
    assert "--heads" in page
    assert "Attention heads" in page
