"""The study of large class-conditional models: run in miniature, its table holds what the plain functions give."""

from __future__ import annotations

import pytest
import torch
from containers import foreign_shapes
from study_runs import Here, options, rows

from repro.banks import Bank
from repro.cli.main import main
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.metrics import functional
from repro.registry import load
from repro.released.dit import layout as dit
from repro.released.uvit import layout as uvit
from repro.studies import imagenet
from repro.studies.cost import cost_of, flops_of_network


@pytest.fixture(autouse=True)
def _few_figures(monkeypatch):
    monkeypatch.setattr("repro.comparison.write.figures", lambda comparison: ())
    monkeypatch.setattr(imagenet, "_AUTOENCODER_STEPS", 2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two models of latents of digits, trained for two steps each: the folder, and what was told."""
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    pytest.importorskip("transformers", reason="needs the extra diffusers")
    folder = tmp_path_factory.mktemp("imagenet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repro.comparison.write.figures", lambda comparison: ())
        patch.setattr(imagenet, "_AUTOENCODER_STEPS", 2)
        patch.setattr(imagenet, "_TINY", {name: imagenet._TINY[name] for name in ("DiT", "ADM")})
        study = load("studies", "imagenet")(seeds="0-5", classes="1,7")
        told = study.run(folder, "tiny", Here(2), main)
        again = Here(2)
        study.run(folder, "tiny", again, main)
    assert again.ran == []
    return folder, told


def test_models_of_latents_are_trained_decoded_and_compared(ran):
    folder, told = ran
    assert "DiT - ADM: " in told
    assert "6 noises, 2 classes" in told
    assert "n = 12, control" in told
    banks = [Bank.open(folder / "banks" / name) for name in ("DiT", "ADM")]
    for bank in banks:
        assert bank.manifest.model["name"] == "Decoded"
        assert bank.manifest.guidance == 1.5
        assert bank.labels.tolist() == [1, 7] * 6
        assert bank.images.shape[1:] == (1, 8, 8)
    features = [Pixels().features(bank.images) for bank in banks]
    right = functional.conditional_reproducibility_score(*features, banks[0].labels, 10, 0.95)
    table = rows(folder / "imagenet.csv")
    assert [row["class"] for row in table] == ["1", "7", "mean"]
    assert float(table[-1]["rate"]) == pytest.approx(right.mean)
    assert all(row["control_rate"] for row in table)
    assert (folder / "imagenet.png").is_file()
    assert list((folder / "results").glob("events*"))


def test_runs_and_banks_are_compared_by_the_shape_of_their_images(ran, tmp_path):
    folder, _ = ran
    words = [f"a={folder / 'runs' / 'DiT'}", f"b={folder / 'runs' / 'ADM'}", f"alone={folder / 'banks' / 'DiT'}"]
    study = load("studies", "imagenet")(words, "1,7", "0-5", descriptor=Pixels(), threshold=0.5)
    told = study.run(tmp_path, "tiny", Here(2), main)
    assert "alone alone draws images of 1x8x8" in told
    assert "a - b: " in told
    table = rows(tmp_path / "imagenet.csv")
    assert {(row["images"], row["first"], row["threshold"]) for row in table} == {("4x4x4", "a", "0.5")}


def test_the_paper_is_planned_by_name(tmp_path):
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    jobs = {job.name: options(job) for job in load("studies", "imagenet")(files="there").jobs(tmp_path, "paper")}
    assert jobs["draw_DiT-XL-2"]["model.model"] == "there/DiT-XL-2-256x256.pt"
    assert jobs["draw_UViT-H-2"]["model.decoder"] == "stabilityai/sd-vae-ft-ema"
    assert jobs["draw_EDM-64"]["ckpt_path"] == "there/edm-imagenet-64x64-cond-adm.pkl"
    assert {job["classes"] for job in jobs.values()} == {"22,88,207,250,360,387,417,974"}


def test_the_operations_of_released_models_are_counted(tmp_path):
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    latents = {"channels": 4, "size": 32, "num_classes": 1000}
    forward = {
        "DiT-XL-2": flops_of_network("DiT", {"null_class": True, "learn_sigma": True}, **latents),
        "EDM-64": flops_of_network("ADM", {}, 3, 64, 1000),
    }
    for name, counted in forward.items():
        assert imagenet._PAPER[name].forward == pytest.approx(counted, rel=0.01)
    dit = imagenet._PAPER["DiT-XL-2"]
    assert dit.flops(1.5) - dit.flops(1.0) == 20 * dit.forward
    jobs = load("studies", "imagenet")().jobs(tmp_path, "paper")
    images = 100 * 8
    assert next(job.size.flops for job in jobs if job.name == "draw_DiT-XL-2") == images * dit.flops(1.5)
    assert "operations are not counted" not in cost_of(jobs, dict, 40.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], "name two or more"),
        (["nothing", "here"], "there is no bank, run or checkpoint at nothing"),
        (["--seeds", "3"], "two noises or more"),
        (["--scale", "small"], "no scale small"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "imagenet", *words, "--output", "out"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_classes_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.json").write_text('{"num_classes": 0}')
    with pytest.raises(UserError, match="has no classes"):
        load("studies", "imagenet")([f"a={tmp_path}", f"b={tmp_path}"]).jobs(tmp_path / "out")


def test_released_files_of_latents_are_decoded_and_compared(tmp_path, monkeypatch):
    """Small files under the published names; guided, with the heads of the published networks of their widths."""
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    pytest.importorskip("transformers", reason="needs the extra diffusers")
    from pipelines import autoencoder

    layouts = {"DiT-XL-2": (dit, "DiT", 384, {"learn_sigma": True}), "UViT-H-2": (uvit, "UViT", 512, {})}
    small = {"image_size": 8, "channels": 4, "patch_size": 4, "depth": 2, "num_classes": 1000, "null_class": True}
    for name, (layout, network, width, more) in layouts.items():
        args = small | more | {"width": width, "heads": width // 64}
        shapes = foreign_shapes(layout, {"name": network, "args": args})
        generator = torch.Generator().manual_seed(0)
        tensors = {key: 0.05 * torch.randn(each.shape, generator=generator) for key, each in shapes.items()}
        torch.save(tensors, tmp_path / imagenet._PAPER[name].file)
    autoencoder().save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(imagenet, "_PAPER", {name: imagenet._PAPER[name] for name in layouts})
    study = load("studies", "imagenet")(
        classes="3,207", seeds="0-2", files=str(tmp_path), decoder=str(tmp_path / "vae"), descriptor=Pixels()
    )
    told = study.run(tmp_path / "out", "paper", Here(2), main)
    assert "DiT-XL-2 - UViT-H-2: " in told
    bank = Bank.open(tmp_path / "out" / "banks" / "UViT-H-2")
    assert bank.images.shape == (6, 3, 32, 32)
    assert bank.manifest.guidance == 1.5
    assert bank.labels.tolist() == [3, 207] * 3
