"""Inverse problems from the command line: which models are taken, what is reported, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_here
from PIL import Image

from repro.banks import Bank
from repro.images import to_float
from repro.inverse.operators.masks import CentreMask
from repro.records import rebuild

TEST = ("test", "--task", "inpaint", "--seeds", "0-3", "--trainer.enable_progress_bar", "false")

BEST = """
model:
  class_path: Exact
  init_args:
    denoiser:
      class_path: EmpiricalDenoiser
      init_args: {images: {class_path: Digits, init_args: {subset: 50}}, kernel: EDM}
    sampler: {class_path: Heun, init_args: {steps: 18}}
"""


def scores(out: str) -> dict[str, float]:
    pairs = (line.split(": ") for line in out.splitlines() if line.count(": ") == 1 and "/" in line)
    return {name: float(value.split()[0]) for name, value in pairs if name not in ("picture", "table", "scores")}


def test_without_a_run_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "train one: repro fit --config NAME" in run_here(*TEST).mistake
    assert not list(tmp_path.iterdir())


def test_it_takes_the_newest_runs_on_the_same_data(trained: Path) -> None:
    other = run_here("fit", "--config", "tiny.yaml", "--name", "other", "--seed_everything", "1")
    assert other.code == 0, other
    done = run_here(*TEST)
    assert done.code == 0, done
    assert "using runs/other" in done.err
    assert "comparing with runs/tiny" in done.err
    found = scores(done.out)
    assert {"psnr/truth", "ssim/truth", "residual/truth", "rp/tiny", "mae/tiny", "residual/tiny"} <= set(found)
    assert list(Path("runs/other").glob("inpaint-*.png"))


def test_projected_images_agree_with_their_measurements(trained: Path) -> None:
    side = ("--problem.operator", "CentreMask", "--problem.operator.side", "0.78125", "--problem.project", "true")
    drawn = run_here(
        "predict", "--task", "inpaint", "--ckpt_path", "runs/tiny", *side, "--seeds", "0-3", "--output", "b"
    )
    assert drawn.code == 0, drawn
    bank = Bank.open("b")
    assert bank.manifest.task == "inpaint"
    assert bank.manifest.extra["operator"]["args"] == {"side": 0.78125}
    operator = CentreMask(0.78125)
    seen = operator(to_float(rebuild(bank.manifest.data).images()[:4]))
    torch.testing.assert_close(operator(to_float(bank.images)), seen, rtol=0, atol=1e-6)
    clash = run_here(*TEST, "--ckpt_path", "runs/tiny", "--reference", "b")
    assert "drawn for another problem" in clash.mistake


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--problem.operator", "CentreMsk"), "did you mean 'CentreMask'"),
        (("--problem.step", "2"), "did you mean 'step_size'"),
        (("--problem.operator", "MaskFile", "--problem.operator.path", "no.png"), "no mask at no.png"),
        (
            ("--problem.operator", "MaskFile", "--problem.operator.path", "mask.png"),
            "mask.png is 9x8, the images are 8x8",
        ),
        (("--problem.operator", "HighDynamicRange", "--problem.project", "true"), "is not linear"),
        (
            ("--problem.truth", "LowRankMixture"),
            "3x4x4, the model's are 1x8x8; add --problem.truth.resize 8 --",
        ),
        (("--problem.observation", "64"), "has 64 images, from 0 to 63"),
        (("--problem.observation", "-1"), "observation is -1; give at least 0"),
        (("--problem.step_size", "-0.5"), "step_size is -0.5; give at least 0"),
        (("--problem.noise", "-1"), "noise is -1; give at least 0"),
        (("--problem.norm", "l3"), "l3"),
        (
            ("--problem.operator.side", "0.7"),
            "problem.operator.side is given, but not of which class",
        ),
        (("--problem.operator", "CentreMask", "--problem.operator.side", "1.5"), "side is 1.5"),
        (("--problem.operator", "Downsample", "--problem.operator.factor", "3"), "factor 3 does not divide"),
        (("--sampler", "RK45"), "lets every image choose its own steps"),
        (("--task", "unconditional", "--problem.noise", "0.1"), "is for inverse tasks"),
    ],
)
def test_mistakes_are_one_line(trained: Path, words: tuple[str, ...], message: str) -> None:
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(9, 8) * 3).save("mask.png")
    assert message in run_here(*TEST, "--ckpt_path", "runs/tiny", *words).mistake


def test_no_model_is_trained_for_an_inverse_task(trained: Path) -> None:
    assert (
        "no model is trained for --task inpaint"
        in run_here("fit", "--config", "tiny.yaml", "--task", "inpaint").mistake
    )


def test_the_empirical_optimum_needs_nothing_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are training images: GL is 0."""
    monkeypatch.chdir(tmp_path)
    Path("best.yaml").write_text(BEST)
    done = run_here(*TEST, "--config", "best.yaml", "--data", "Digits", "--data.subset", "50", "--descriptor", "Pixels")
    assert done.code == 0, done
    found = scores(done.out)
    assert {"rp/truth", "psnr/truth", "residual/truth"} <= set(found)
    assert "gl: 0.0000" in done.out
    assert list(Path("runs/best").glob("inpaint-*.png"))


def test_further_metrics_go_through_the_one_protocol(trained: Path) -> None:
    done = run_here(*TEST, "--ckpt_path", "runs/tiny", "--metric", "MAEScore")
    assert done.code == 0, done
    assert "did you mean" in run_here(*TEST, "--ckpt_path", "runs/tiny", "--metric", "MAEScor").mistake
    lonely = run_here(*TEST, "--ckpt_path", "runs/tiny", "--metric", "GeneralizationScore")
    assert "GeneralizationScore" in lonely.mistake
