"""Unconditional folders of diffusers become models of ours, and draw what diffusers draws from the same noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers", reason="needs the extra diffusers: pip install diffusers transformers")
pytest.importorskip("transformers", reason="needs the extra diffusers: pip install diffusers transformers")

from diffusers import DDIMPipeline, DDIMScheduler, LDMPipeline, UNet2DModel, VQModel
from diffusers.pipelines.ddim import pipeline_ddim
from pipelines import ddpm

import repro
from repro import records
from repro.banks import Bank
from repro.cli.main import main
from repro.errors import UserError
from repro.models.pipeline import Pipeline
from repro.noise import draw_noise
from repro.released.importing import import_file
from repro.samplers import Euler

HUGGING_FACE = {
    "attention_head_dim": 4,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "layers_per_block": 2,
}
NETWORKS = {
    "ddpm-cifar10": ({}, {}),
    "defaults of UNet2DModel": (HUGGING_FACE, {"clip_sample": False}),
    "not square": ({"sample_size": (8, 12)}, {}),
    "v": ({}, {"prediction_type": "v_prediction"}),
    "image": ({}, {"prediction_type": "sample"}),
    "learned variance": ({"out_channels": 6}, {"variance_type": "learned_range"}),
    "latents": ({"in_channels": 4, "out_channels": 4}, {"beta_schedule": "scaled_linear", "beta_start": 0.00085,
                                                       "beta_end": 0.012, "clip_sample": False}),
}  # fmt: skip
STEPS = 20


def network_of(folder: Path) -> UNet2DModel:
    return UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).eval()


def theirs(folder: Path, noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What diffusers' own pipeline for DDIM draws from the noise: steps from the last one on, to the clean image."""
    network = network_of(folder)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing")
    if network.config.out_channels != network.config.in_channels:  # that pipeline knows no variance: cut it there
        forward = network.forward
        monkeypatch.setattr(network, "forward", lambda x, t: type(forward(x, t))(forward(x, t).sample[:, : x.shape[1]]))
    pipeline = DDIMPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(pipeline_ddim, "randn_tensor", lambda *_, **__: noise)
    images = pipeline(batch_size=len(noise), num_inference_steps=STEPS, use_clipped_model_output=True, output_type="np")
    return torch.from_numpy((images.images * 255).round()).permute(0, 3, 1, 2).int()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_draws_what_diffusers_draws_by_ddim(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, scheduler = NETWORKS[name]
    folder = ddpm(tmp_path / "ddpm", scheduler=scheduler, **changes)
    imported = import_file(folder)
    assert (imported.format, imported.file.assumed, imported.file.title) == ("diffusers", {}, "ddpm")
    network, model = network_of(folder), imported.model
    x, t = torch.randn(3, *model.image_shape), torch.tensor([0.0, 371.0, 999.0])
    torch.testing.assert_close(model.denoiser.network(x, t), network(x, t).sample, rtol=1e-4, atol=1e-5)
    clip = scheduler.get("clip_sample", True)
    ours = model.sample(range(6), sampler=Euler(STEPS, "time_uniform", t_end=1 / STEPS, clip=clip)).int()
    expected = theirs(folder, draw_noise(range(6), model.image_shape), monkeypatch)
    assert (ours - expected).abs().max() <= 1
    assert expected.float().std() > 10, "no test: the images are flat"


def test_old_names_pickles_and_flat_folders(tmp_path: Path) -> None:
    folder = ddpm(tmp_path / "ddpm")
    expected = import_file(folder)
    tensors = network_of(folder).state_dict()
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        tensors = {name.replace(f".{new}.", f".{old}."): each for name, each in tensors.items()}
    flat = tmp_path / "flat"
    flat.mkdir()
    torch.save(tensors, flat / "diffusion_pytorch_model.bin")
    shutil.copy(folder / "unet/config.json", flat)
    shutil.copy(folder / "scheduler/scheduler_config.json", flat)
    (flat / "model_index.json").write_text("{}")
    for path in (flat, flat / "diffusion_pytorch_model.bin", folder / "unet"):
        imported = import_file(path)
        assert imported.file.title == ("flat" if "flat" in str(path) else "unet")
        assert imported.model.fingerprint() == expected.model.fingerprint()
    (flat / "scheduler_config.json").unlink()
    assert import_file(flat).file.assumed == {"schedule": "linear", "prediction": "epsilon"}


def test_classes_are_read(tmp_path: Path) -> None:
    folder = ddpm(tmp_path / "ddpm", num_class_embeds=5)
    model, network = import_file(folder).model, network_of(folder)
    x, t, labels = torch.randn(3, 3, 8, 8), torch.tensor([0.0, 371.0, 999.0]), torch.tensor([4, 0, 2])
    assert (model.num_classes, model.takes_no_labels) == (5, False)
    expected = network(x, t, labels).sample
    torch.testing.assert_close(model.denoiser.network(x, t, labels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"act_fn": "gelu"}, "no DDPM network: act_fn is 'gelu', not 'silu'; diffusers itself"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ("unet/config.json", {"down_block_types": ["SkipDownBlock2D"] * 3}, "blocks of the kind 'SkipDownBlock2D'"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D"] * 3}, "not on the same resolutions in both halves"),
        ("unet/config.json", {"freq_shift": 0}, r"flip_sin_to_cos and freq_shift are \(False, 0\)"),
        ("unet/config.json", {"sample_size": None}, "does not say its image size; type --image_size VALUE"),
        ("unet/config.json", {"layers_per_block": 10**9}, "weights are fewer than those of the network it describes"),
        ("unet/config.json", {"block_out_channels": "abc"}, "its settings or tensors do not fit together"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "no kernel here has"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.03}, "no kernel here has"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12, "beta_schedule": "squaredcos_cap_v2"},
         "no kernel here has"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "known: epsilon, v_prediction, sample"),
    ],
)  # fmt: skip
def test_other_networks_and_schedulers_are_one_line(
    tmp_path: Path, file: str, changes: dict[str, object], message: str
) -> None:
    folder = ddpm(tmp_path / "ddpm")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
    with pytest.raises(UserError, match=message) as caught:
        import_file(folder)
    assert "\n" not in str(caught.value)


def test_commands_take_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        ddpm(tmp_path / "models" / name, seed=seed)
    short = ["--sampler", "Euler", "--sampler.steps", "2"]
    assert main(["predict", "--ckpt_path", "models/a", "--seeds", "0-1", *short]) == 0
    bank = Bank.open("runs/imported/a/banks/unconditional_0-1")
    assert "diffusers, sha256" in bank.manifest.source
    assert sorted(path.name for path in (tmp_path / "models/a").iterdir()) == ["model_index.json", "scheduler", "unet"]
    words = ["compare", "models/a", "models/b", "--seeds", "5-6", "--descriptor", "Pixels", "--output", "matrix"]
    assert main(words) == 0
    assert main(["import", "models/b", "--output", "b", *short]) == 0
    assert repro.load("b").fingerprint() == repro.load("models/b", sampler=Euler(2)).fingerprint()
    words = ["predict", "--model", "Pipeline", "--model.pipeline", "models/a", "--model.steps", "3", "--seeds", "0-1"]
    assert main([*words, "--output", "drawn"]) == 0, capsys.readouterr().err
    assert Bank.open("drawn").manifest.sampler["name"] == "DDIMScheduler"


def test_any_pipeline_is_drawn_through_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is none of ours, with blocks that resample: DDIM written out in float64."""
    kinds = {"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"}
    folder = ddpm(tmp_path / "ddpm", **kinds, scheduler={"clip_sample": False})
    with pytest.raises(UserError, match="no DDPM network"):
        import_file(folder)
    model, network = Pipeline(str(folder), steps=4), network_of(folder)
    signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    x = draw_noise([3, 5], (3, 8, 8)).double()
    with torch.no_grad():
        for step in (750, 500, 250, 0):
            eps = network(x.float(), step).sample.double()
            before = signal[step - 250] if step else torch.ones((), dtype=torch.float64)
            x = before.sqrt() * (x - (1 - signal[step]).sqrt() * eps) / signal[step].sqrt() + (1 - before).sqrt() * eps
    expected = x.mul(127.5).add(127.5).round().clamp(0, 255)
    assert (model.sample([3, 5]) - expected).abs().max() <= 1
    again = records.rebuild(json.loads(json.dumps(records.record_of(model))))
    assert again.fingerprint() == model.fingerprint() != Pipeline(str(folder), steps=3).fingerprint()


def test_latent_pipelines_are_decoded(tmp_path: Path) -> None:
    folder, kinds = ddpm(tmp_path / "ddpm"), {"down_block_types": ["DownEncoderBlock2D"] * 2}
    torch.manual_seed(0)
    decoder = VQModel(
        **kinds, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[8, 8], latent_channels=3,
        num_vq_embeddings=16, norm_num_groups=4,
    )  # fmt: skip
    whole = LDMPipeline(decoder, network_of(folder), DDIMScheduler(clip_sample=False))
    whole.save_pretrained(tmp_path / "ldm")
    model = Pipeline(str(tmp_path / "ldm"), steps=2)
    assert model.image_shape == (3, 16, 16)
    latents = Pipeline(str(folder), steps=2).noise_shape
    assert model.noise_shape == latents == (3, 8, 8)
    assert model.sample([0, 1]).shape == (2, 3, 16, 16)
    assert not torch.equal(model.sample([0]), model.sample([1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "DDPM"}, "draws noise at each step"),
        ({"scheduler": "own"}, r"own scheduler, DDPMScheduler, draws noise"),
        ({"scheduler": "DDIMM"}, "did you mean 'DDIM'"),
        ({"steps": 0}, "give at least 1"),
        ({"pipeline": "no/such/folder"}, "there is no folder no/such/folder"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Pipeline(**{"pipeline": str(ddpm(tmp_path / "ddpm"))} | options)


def test_folders_that_name_other_classes_are_refused(tmp_path: Path) -> None:
    folder = ddpm(tmp_path / "ddpm")
    index = json.loads((folder / "model_index.json").read_text())
    for changes, message in (
        ({"unet": ["os", "system"]}, "with the part 'unet'"),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "with the part 'text_encoder'"),
        ({"scheduler": ["diffusers", "DDPMPipeline"]}, "only those of diffusers"),
        ({"unet": None}, "has no unet"),
    ):
        (folder / "model_index.json").write_text(json.dumps(index | changes))
        with pytest.raises(UserError, match=message):
            Pipeline(str(folder))
    (folder / "model_index.json").write_text(json.dumps(index))
