"""Stable Diffusion pipelines draw numbered images as the diffusers library does, and are told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from pipelines import pipeline

from repro import records
from repro.errors import UserError
from repro.models.text_to_image import TextToImage
from repro.noise import draw_noise

PROMPT = "a red cat on grass"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline(tmp_path_factory.mktemp("pipelines") / "sd-a")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return TextToImage(str(folder), PROMPT, steps=4)


def theirs(folder: Path, scheduler: type, seeds: range, **options: object) -> torch.Tensor:
    """What the library draws from the numbered latents, as its own arrays rounded to bytes."""
    made = StableDiffusionPipeline.from_pretrained(folder, requires_safety_checker=False)
    made.scheduler = scheduler.from_config(made.scheduler.config)
    made.set_progress_bar_config(disable=True)
    latents = draw_noise(seeds, (4, 8, 8))
    images = made([PROMPT] * len(seeds), latents=latents, output_type="np", **options).images
    return torch.from_numpy((images * 255).round().astype("uint8")).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "scheduler"), [("DDIM", DDIMScheduler), ("DPMSolver", DPMSolverMultistepScheduler), ("own", DDIMScheduler)]
)
def test_it_draws_what_the_pipeline_draws(folder: Path, name: str, scheduler: type) -> None:
    model = TextToImage(str(folder), PROMPT, scheduler=name, steps=4)
    images = model.sample(range(10))
    assert images.shape == (10, *model.image_shape) == (10, 3, 32, 32)
    expected = theirs(folder, scheduler, range(10), num_inference_steps=4, guidance_scale=7.5)
    assert (images.int() - expected.int()).abs().max() <= 1
    assert (images == expected).float().mean() > 0.999
    torch.testing.assert_close(model.sample([9, 3]), images[[9, 3]], rtol=0, atol=1)


def test_it_follows_ddim_under_guidance(model: TextToImage) -> None:
    """The formulas written out in float64: x_s = a_s x_0 + s_s eps, eps = uncond + w (cond - uncond)."""
    with torch.no_grad():
        words = torch.tensor([model.tokens[0] + [27] * (77 - len(model.tokens[0]))])
        nothing = torch.tensor([[26] + [27] * 76])
        cond, uncond = (model.text_encoder(each)[0] for each in (words, nothing))
        signal = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
        x = draw_noise([5], model.latent_shape).double()
        for step in (751, 501, 251, 1):
            eps = [model.unet(x.float(), step, each, return_dict=False)[0].double() for each in (uncond, cond)]
            eps = eps[0] + 7.5 * (eps[1] - eps[0])
            before = signal[max(step - 250, 0)]
            x = before.sqrt() * (x - (1 - signal[step]).sqrt() * eps) / signal[step].sqrt() + (1 - before).sqrt() * eps
        image = model.vae.decode(x.float() / 0.18215).sample
    expected = image.mul(127.5).add(127.5).round().clamp(0, 255)
    assert (model.sample([5]) - expected).abs().max() <= 1


def test_without_guidance_the_negative_prompt_says_nothing(folder: Path) -> None:
    plain, other = (TextToImage(str(folder), PROMPT, text, steps=2, guidance=1.0) for text in ("", "dog"))
    assert torch.equal(plain.sample([0]), other.sample([0]))
    guided = [TextToImage(str(folder), PROMPT, text, steps=2, guidance=7.5).sample([0]) for text in ("", "dog")]
    assert not torch.equal(*guided)


def test_the_record_rebuilds_it_and_the_fingerprint_tells_models_apart(
    model: TextToImage, folder: Path, tmp_path: Path
) -> None:
    again = records.rebuild(json.loads(json.dumps(records.record_of(model))))
    assert again.fingerprint() == model.fingerprint()
    assert torch.equal(again.sample([1]), model.sample([1]))
    other = TextToImage(str(pipeline(tmp_path / "sd-b", seed=1)), PROMPT, steps=4)
    assert other.fingerprint() != model.fingerprint()
    assert not torch.equal(other.sample([1]), model.sample([1]))
    assert TextToImage(str(folder), "a blue dog", steps=4).fingerprint() != model.fingerprint()
    assert model.sampler_record()["name"] == "DDIMScheduler"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "DDPM"}, "draws noise at each step"),
        ({"scheduler": "DDIMM"}, "did you mean 'DDIM'"),
        ({"steps": 0}, "give at least 1"),
        ({"guidance": 0.5}, "from 1"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "cat " * 100}, "the pipeline reads 77"),
        ({"size": 33}, "give a multiple of 8"),
        ({"pipeline": "no/such/folder"}, "there is no folder no/such/folder"),
    ],
)
def test_mistakes(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TextToImage(**{"pipeline": str(folder), "prompt": PROMPT} | options)


def test_a_scheduler_that_draws_noise_is_refused(tmp_path: Path) -> None:
    stochastic = pipeline(tmp_path / "sd", scheduler=DDPMScheduler(clip_sample=False, steps_offset=1))
    with pytest.raises(UserError, match=r"DDPMScheduler, draws noise .* DDIM or DPMSolver"):
        TextToImage(str(stochastic), PROMPT, scheduler="own")
    TextToImage(str(stochastic), PROMPT, scheduler="DDIM", steps=1)


def edited(folder: Path, to: Path, **changes: object) -> str:
    shutil.copytree(folder, to)
    index = json.loads((to / "model_index.json").read_text())
    (to / "model_index.json").write_text(json.dumps(index | changes))
    return str(to)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": ["mine", "Pipeline"]}, "only StableDiffusionPipeline can be read"),
        ({"unet": ["os", "system"]}, "only UNet2DConditionModel can be read"),
        ({"extra": ["diffusers", "AutoencoderKL"]}, "component"),
        ({"scheduler": ["mine", "Scheduler"]}, "only those of diffusers"),
        ({"unet": [None, None]}, "unet"),
    ],
)
def test_folders_that_name_other_classes_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        TextToImage(edited(folder, tmp_path / "sd", **changes), PROMPT)


def test_pickled_and_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = Path(edited(folder, tmp_path / "sd"))
    weights = changed / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot read .* damaged"):
        TextToImage(str(changed), PROMPT)
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(UserError, match="a pickle, which may run code"):
        TextToImage(str(changed), PROMPT)


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **options: object) -> str:
        raise ConnectionError("no route to the hub. And more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match=r"there is no folder owner/model here.*no route.*name its folder"):
        TextToImage("owner/model", PROMPT)


def test_a_missing_extra_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else True)
    with pytest.raises(UserError, match=r"needs transformers: pip install transformers$"):
        TextToImage(str(folder), PROMPT)
