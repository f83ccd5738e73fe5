"""Models of latents with a decoder: imported, kept as runs that stand alone, drawn noise by class, and compared."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("transformers", reason="needs the extra diffusers")

from containers import foreign_shapes, state_dict_file
from diffusers import AutoencoderKL, DDIMScheduler
from pipelines import autoencoder, pipeline

import repro
from repro import records, registry
from repro.banks import Bank
from repro.cli.main import main
from repro.errors import UserError
from repro.kernels import DiscreteVP
from repro.models.decoded import Decoded
from repro.noise import NoiseStream
from repro.released.dit import layout as dit
from repro.released.importing import import_file
from repro.released.uvit import layout as uvit

SMALL = {"image_size": 8, "channels": 4, "patch_size": 2, "width": 32, "depth": 2, "heads": 4, "null_class": True}
FAMILIES = {
    "dit": (dit, {"name": "DiT", "args": SMALL | {"num_classes": 1000, "learn_sigma": True}}),
    "uvit": (uvit, {"name": "UViT", "args": SMALL | {"num_classes": 1000, "final_conv": False}}),
}
QUICK = ("--sampler", "Euler", "--sampler.steps", "3")


def released(folder, family, seed=0):
    """A file as the family's authors release them, small, with numbered random weights."""
    layout, record = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)
    shapes = foreign_shapes(layout, record)
    tensors = {name: 0.2 * torch.randn(each.shape, generator=generator) for name, each in shapes.items()}
    path = folder / f"{family}-{seed}.pt"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each family, and the folder of an autoencoder, ``vae``."""
    folder = tmp_path_factory.mktemp("latents")
    for family in FAMILIES:
        released(folder, family)
    autoencoder().save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; gives its output, or the one line of a mistake."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        if code:
            assert (code, err.count("\n")) == (2, 1), err
        return out if code == 0 else err

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_decoded_images_are_the_librarys(files, family):
    decoded = repro.load(files / f"{family}-0.pt", heads=4, decoder=str(files / "vae"))
    plain = import_file(files / f"{family}-0.pt", heads=4).model
    assert (decoded.image_shape, decoded.num_classes, plain.image_shape) == ((3, 32, 32), 1000, (4, 8, 8))
    seeds, labels = range(10), torch.arange(10) * 100
    latents = plain.generate(NoiseStream(seeds), labels).float()
    with torch.no_grad():
        expected = AutoencoderKL.from_pretrained(files / "vae").decode(latents / 0.18215).sample
    assert (decoded.sample(seeds, labels).int() - repro.images.to_uint8(expected).int()).abs().max() <= 1
    assert not torch.equal(decoded.sample([0], labels[:1]), decoded.sample([0], labels[1:2]))


def test_uvit_of_latents_is_under_the_levels_of_stable_diffusion(files):
    imported = import_file(files / "uvit-0.pt", heads=4)
    assert imported.file.assumed == {"kernel": "StableDiffusion", "null_class": True}
    denoiser = imported.model.denoiser
    steps = torch.tensor([1, 2, 500, 1000])
    t = steps.double() / 1000
    signal = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(denoiser.kernel.alpha(t) ** 2, signal[steps - 1].double(), rtol=1e-5, atol=0)
    levels = denoiser.parameterization.noise_level(t, -denoiser.kernel.log_snr(t))
    assert levels.tolist() == pytest.approx(steps.tolist())
    table = torch.load(files / "uvit-0.pt")["label_emb.weight"]
    network = denoiser.network
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = network(x, steps[:1].float())
        network.labels.vectors.weight[3] = table[1000]
        assert torch.equal(network(x, steps[:1].float(), torch.tensor([3])), expected)


def test_scaled_linear_levels_of_fewer_steps_are_nearly_those_of_1000():
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    full, short = (DiscreteVP("scaled_linear", steps=steps).log_alpha(t) for steps in (1000, 100))
    torch.testing.assert_close(short, full, rtol=0.05, atol=0)
    with pytest.raises(UserError, match="at least 13 steps"):
        DiscreteVP("scaled_linear", steps=12)


def test_from_released_files_to_scores_by_class(files, said, tmp_path):
    for family in FAMILIES:
        file = tmp_path / f"{family}.pt"
        file.write_bytes((files / f"{family}-0.pt").read_bytes())
        vae = pipeline(tmp_path / "sd") if family == "dit" else files / "vae"
        told = said("import", file, "--heads", 4, "--decoder", vae, *QUICK)
        weights = next((vae / "vae" if family == "dit" else vae).glob("*.safetensors")).read_bytes()
        sha256 = hashlib.sha256(weights).hexdigest()
        assert f"latents 4x8x8, decoded by the autoencoder of sha256 {sha256}" in told
        assert "images 3x32x32, 1000 classes" in told
        expected = repro.load(file, heads=4, decoder=str(vae))
        file.unlink()
        classes = ("--classes", "1,207", "--guidance", 1.5, "--seeds", "0-4")
        said("predict", "--ckpt_path", f"runs/imported/{family}", *classes, "--output", family)
        bank = Bank.open(family)
        assert len(bank) == 10
        assert bank.labels.tolist() == [1, 207] * 5
        assert bank.manifest.model["args"]["decoder"]["sha256"] == sha256
        assert bank.manifest.labels["num_classes"] == 1000
        quick = registry.build("samplers", "Euler", steps=3)
        again = expected.sample([4, 4], torch.tensor([1, 207]), quick, 1.5)
        assert (bank.images[-2:].int() - again.int()).abs().max() <= 1
    found = repro.compare(["dit", "dit", "uvit"], registry.build("descriptors", "Pixels"), threshold=0.9)
    scores = found.scores["RP"]
    assert scores.totals[0, 1] == 10
    assert scores.rates[0, 1] == 1
    assert scores.rates[0, 2] < 1


def test_a_run_without_a_decoder_gets_one_when_drawn(files, said):
    said("import", files / "dit-0.pt", "--heads", 4, *QUICK)
    words = ("--model", "Decoded", "--model.model", "runs/imported/dit-0", "--model.decoder", files / "vae")
    said("predict", *words, "--classes", "5", "--seeds", "0-1", "--output", "bank")
    decoded = Decoded(repro.load("runs/imported/dit-0"), str(files / "vae"))
    assert torch.equal(Bank.open("bank").images, decoded.sample([0, 1], torch.tensor([5, 5])))
    again = records.rebuild(json.loads(json.dumps(records.record_of(decoded))))
    again.load_state_dict(decoded.state_dict())
    assert again.fingerprint() == decoded.fingerprint()
    assert torch.equal(again.sample([3], torch.tensor([5])), decoded.sample([3], torch.tensor([5])))


def test_mistakes(files, said, tmp_path):
    drawn = ("import", files / "dit-0.pt", "--heads", 4)
    assert "there is no folder no/such/vae" in said(*drawn, "--decoder", "no/such/vae")
    assert "has no config.json" in said(*drawn, "--decoder", tmp_path)
    autoencoder(latents=8).save_pretrained(tmp_path / "eight")
    assert "the model draws 4 channels, the decoder takes latents of 8" in said(*drawn, "--decoder", tmp_path / "eight")
    autoencoder().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert "a pickle, which may run code" in said(*drawn, "--decoder", tmp_path / "pickled")
    pixels = state_dict_file(tmp_path / "pixels.pth", "uvit")
    assert "the model draws 3 channels" in said("import", pixels, "--heads", 2, "--decoder", files / "vae")
    words = ("--model", "Decoded", "--model.model", "runs/none", "--model.decoder", files / "vae")
    assert "no checkpoint at runs/none" in said("predict", *words, "--seeds", "0-1")
    assert not list(tmp_path.glob("runs/*"))
