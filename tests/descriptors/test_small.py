"""Small descriptors: those that ship find copies, files and runs give the same vectors, mistakes are one line."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from noisy_images import random_images
from sklearn.datasets import load_sample_images

from repro.analysis.copy_detection import detect_copies
from repro.data.digits import Digits
from repro.descriptors import default_descriptor, small, timm_models
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SHIPPED, SmallSSCD, shipped_file
from repro.descriptors.sscd import SSCD
from repro.descriptors.timm_models import Timm
from repro.errors import UserError
from repro.studies.descriptors import DIGITS_HELD_OUT


@pytest.fixture(scope="module")
def photographs():
    """Patches of two photographs, half their size, that overlap nowhere: 32 x 32 colour images of nature.

    Many of them (sky, petals) are nearly alike, so they are harder distractors than unrelated images.
    """
    parts = []
    for image in load_sample_images().images:
        pixels = torch.tensor(image).permute(2, 0, 1).float()[None]
        half = torch.nn.functional.interpolate(pixels, scale_factor=0.5, mode="area")[0].round().to(torch.uint8)
        parts.append(half[:, :192, :320].unfold(1, 32, 32).unfold(2, 32, 32).flatten(1, 2).transpose(0, 1))
    return torch.cat(parts).contiguous()


def test_the_shipped_digits_descriptor_finds_copies_that_pixels_miss():
    held = Digits(holdout=DIGITS_HELD_OUT).held_out()[0]
    found, pixels = (detect_copies(each, held, 100) for each in (SmallSSCD("digits"), Pixels()))
    assert found.precision[-1] > 0.9
    assert found.precision[-1] > pixels.precision[-1] + 0.05
    assert found.false_positive_rate <= 1e-3
    assert sum(found.hits) > 0.8 * 600


def test_the_shipped_colour_descriptor_finds_copies(photographs):
    found, pixels = (detect_copies(each, photographs, 60) for each in (SmallSSCD("cifar"), Pixels()))
    assert found.precision[-1] > pixels.precision[-1] + 0.1
    assert sum(found.hits) > 0.85 * 360 > sum(pixels.hits)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_small_and_says_how_it_was_made_and_measured(name):
    assert shipped_file(name).stat().st_size < 1e6
    record = json.loads(shipped_file(name).with_suffix(".json").read_text())
    rows = {(row["descriptor"], row["edit"]): row for row in record["evaluation"]["rows"]}
    ours, pixels = rows[f"SmallSSCD({name})", "all"], rows["Pixels", "all"]
    assert ours["micro_ap"] > pixels["micro_ap"] + 0.05
    assert ours["threshold"] == SmallSSCD(name).default_threshold >= 0.6
    assert ours["false_positive_rate"] <= 1e-3
    assert record["training"]["model"]["name"] == "CopyDetection"
    assert record["training"]["images_seen"] > 0
    assert "/" not in str(record["training"]["data"]["args"].get("path"))


def test_the_record_of_the_digits_is_what_is_measured_here():
    rows = json.loads(shipped_file("digits").with_suffix(".json").read_text())["evaluation"]["rows"]
    held = Digits(holdout=DIGITS_HELD_OUT).held_out()[0]
    found = detect_copies(SmallSSCD("digits"), held, len(held), ["blur", "noise"]).rows()
    recorded = {row["edit"]: row for row in rows if row["descriptor"] == "SmallSSCD(digits)"}
    for row in found[:2]:
        for key in ("micro_ap", "recall", "false_positive_rate"):
            assert row[key] == pytest.approx(recorded[row["edit"]][key], abs=2e-3)


def test_sizes_and_channels_are_fitted():
    digits, cifar = SmallSSCD("digits"), SmallSSCD("cifar")
    grey = Digits(subset=5).images()
    torch.testing.assert_close(cifar.features(grey), cifar.features(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-6)
    torch.testing.assert_close(digits.features(grey), digits.features(grey.expand(-1, 3, -1, -1)), rtol=0, atol=1e-5)
    large = grey.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert (digits.features(grey) @ digits.features(large).T).argmax(1).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="4 channels"):
        cifar.features(random_images(2, 4, 8, 8))


def test_a_saved_file_gives_the_same_vectors_and_its_own_threshold(tmp_path):
    SmallSSCD("digits").save(tmp_path / "mine.safetensors", threshold=0.7)
    mine = SmallSSCD(str(tmp_path / "mine.safetensors"))
    images = random_images(4, 1, 8, 8)
    assert torch.equal(mine.features(images), SmallSSCD("digits").features(images))
    assert (mine.name, mine.default_threshold) == ("SmallSSCD(mine)", 0.7)
    assert mine.fingerprint == SmallSSCD("digits").fingerprint != SmallSSCD("cifar").fingerprint
    assert pickle.loads(pickle.dumps(mine)).fingerprint == mine.fingerprint


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 8), "SmallSSCD(digits)"), ((1, 28, 28), "SmallSSCD(cifar)"), ((3, 8, 8), "SmallSSCD(cifar)")],
)
def test_the_default_fits_the_images(shape, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    assert default_descriptor(shape).name == expected
    assert default_descriptor((4, 8, 8)).name == "Pixels"
    (tmp_path / "sscd").mkdir()
    (tmp_path / "sscd" / "sscd_disc_large.torchscript.pt").touch()
    assert isinstance(default_descriptor(shape), SSCD)
    assert default_descriptor((4, 8, 8)).name == "Pixels"


def damaged(folder):
    data = bytearray(shipped_file("digits").read_bytes())
    (folder / "cut.safetensors").write_bytes(data[:-100])
    return SmallSSCD(str(folder / "cut.safetensors"))


def foreign(folder):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    return SmallSSCD(str(folder / "other.safetensors"))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: SmallSSCD("digit"), "did you mean 'digits'"),
        (lambda folder: SmallSSCD(str(folder / "none.safetensors")), "no descriptor at"),
        (lambda folder: SmallSSCD(str(folder / "none" / "run")), "no checkpoint at"),
        (damaged, "damaged"),
        (foreign, "not written by SmallSSCD.save"),
        (lambda folder: Timm("resnet19"), "did you mean 'resnet18'"),
    ],
)
def test_mistakes_are_one_line(make, word, tmp_path):
    with pytest.raises(UserError) as caught:
        make(tmp_path).features(random_images(2, 1, 8, 8))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_another_model_is_no_descriptor(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.checkpoints.loading.load_model", lambda path: torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="holds a Linear, no descriptor"):
        SmallSSCD(str(tmp_path)).features(random_images(1, 1, 8, 8))


def test_timm_networks_see_images_as_they_were_trained():
    images = random_images(2, 1, 20, 20)
    descriptor = Timm("test_resnet", pretrained=False)
    config = timm_models.Timm._config.fget(descriptor)
    seen = []
    descriptor._network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    descriptor.features(images)
    assert tuple(seen[0].shape) == (2, *config["input_size"])
    back = seen[0] * torch.tensor(config["std"]).view(3, 1, 1) + torch.tensor(config["mean"]).view(3, 1, 1)
    assert -1e-6 <= back.min() < back.max() <= 1 + 1e-6
    torch.testing.assert_close(back[:, 0], back[:, 1])
    again = Timm("test_resnet", pretrained=False)
    assert (again.fingerprint, again.name) == (descriptor.fingerprint, "timm:test_resnet (untrained)")


def test_timm_weights_that_cannot_be_had_are_one_line(monkeypatch):
    import timm

    def offline(*_, **__):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError) as caught:
        Timm("resnet18").features(random_images(1, 3, 8, 8))
    message = str(caught.value)
    assert "https://huggingface.co/timm/resnet18.a1_in1k" in message
    assert "--descriptor.pretrained false" in message
    assert "\n" not in message


def test_the_shipped_names_are_the_files():
    assert {f"sscd_{name}.safetensors" for name in small.SHIPPED} == {
        path.name for path in shipped_file("x").parent.glob("*.safetensors")
    }
