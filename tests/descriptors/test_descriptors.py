"""Descriptors: their laws, the published preprocessing, where weights come from, and features computed once."""

import math
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from noisy_images import random_images
from onnx_files import write_onnx
from PIL import Image
from torch import nn

from repro import registry
from repro.banks import Bank, BankWriter
from repro.descriptors import cached_features, features_of_bank, sscd
from repro.descriptors.pixels import Pixels
from repro.descriptors.sscd import SSCD
from repro.errors import UserError
from repro.testing import descriptors as laws

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class TinyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 12, 16, stride=16)

    def forward(self, images):
        vectors = self.convolution(images).flatten(2).mean(2)
        return vectors / vectors.square().sum(1).sqrt()[:, None]


def tiny_weights(path, seed=0):
    torch.manual_seed(seed)
    torch.jit.script(TinyNetwork()).save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.torchscript.pt")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sscd, "packaged_file", lambda weights: None)
    return tmp_path / "cache"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", registry.names("descriptors"))
def test_laws(name, channels, weights, tmp_path):
    if name == "ONNX":
        pytest.importorskip("onnxruntime")
    network = write_onnx(tmp_path / "network.onnx", np.random.default_rng(0).normal(size=(12, 3, 4, 4)))
    settings = {
        "ONNX": {"path": str(network)},
        "SSCD": {"weights": weights},
        "Timm": {"model": "test_resnet", "pretrained": False},
    }.get(name, {})
    laws.check_descriptor(registry.build("descriptors", name, **settings), (channels, 16, 16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", registry.names("descriptors"))
def test_on_an_accelerator_only_the_vectors_are_waited_for(name, channels, weights, tmp_path, monkeypatch):
    if name == "ONNX":
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr(sscd, "read_released", lambda file: TinyNetwork().eval())
    network = write_onnx(tmp_path / "network.onnx", np.random.default_rng(0).normal(size=(12, 3, 4, 4)))
    settings = {
        "ONNX": {"path": str(network)},
        "SSCD": {"weights": weights},
        "Timm": {"model": "test_resnet", "pretrained": False},
    }
    laws.check_device(lambda: registry.build("descriptors", name, **settings.get(name, {})), (channels, 16, 16))


class _LooksAtPixels(Pixels):
    def describe(self, images, device):
        vectors = super().describe(images, device)
        return vectors if vectors.any() else vectors + 1


class _CentresOnTheHost(Pixels):
    def describe(self, images, device):
        return super().describe(images, device) - torch.ones(images[0].numel())


def test_the_law_of_devices_notices():
    with pytest.raises(AssertionError, match=r"more than the vectors: .*item\(\)"):
        laws.check_device(_LooksAtPixels)
    with pytest.raises(AssertionError, match="left on the CPU"):
        laws.check_device(_CentresOnTheHost)


@pytest.mark.parametrize("name", ["SSCD", "SmallSSCD", "Timm", "ONNX"])
def test_channels_are_refused_before_any_weights_are_read(name, tmp_path, monkeypatch):
    cls = registry.load("descriptors", name)
    monkeypatch.setattr(cls, "fingerprint", property(lambda self: pytest.fail("weights were read")))
    descriptor, images = cls.__new__(cls), random_images(2, 5, 8, 8)
    for refuse in (lambda: descriptor(images), lambda: cached_features(images, "ab", descriptor, tmp_path)):
        with pytest.raises(UserError, match=f"images have 5 channels; {name} takes 1 or 3"):
            refuse()


def test_pixels_are_the_centred_cosine():
    a, b = random_images(2, 20, 3, 6, 5)
    x, y = a.double().flatten(1), b.double().flatten(1)
    expected = [np.corrcoef(u.numpy(), v.numpy())[0, 1] for u, v in zip(x, y, strict=True)]
    found = (Pixels().features(a) * Pixels().features(b)).sum(1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    plain = (Pixels(center=False).features(a) * Pixels(center=False).features(b)).sum(1)
    torch.testing.assert_close(plain, nn.functional.cosine_similarity(x, y).float(), rtol=1e-6, atol=1e-6)


def test_pixels_of_one_colour_are_like_nothing():
    flat = torch.full((2, 1, 4, 4), 200, dtype=torch.uint8)
    assert not Pixels().features(flat).any()
    assert Pixels(center=False).features(flat).norm(dim=1).tolist() == pytest.approx([1, 1])


def pil_pipeline(image, size):
    array = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR), dtype=np.float64) / 255
    return ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("shape", "resize", "size", "levels"),
    [
        ((3, 32, 32), "square320", (320, 320), 0),
        ((1, 8, 8), "square320", (320, 320), 0),
        ((3, 32, 32), "short288", (288, 288), 0),
        ((3, 32, 48), "short288", (288, 432), 0),
        ((3, 50, 33), "short288", (436, 288), 1),
        ((3, 400, 500), "square320", (320, 320), 2),
        ((1, 400, 500), "short288", (288, 360), 1),
    ],
)
def test_preprocessing_equals_the_image_library(shape, resize, size, levels):
    """Exact when small images are enlarged; within one or two of 255 levels otherwise (fixed-point filters)."""
    images = random_images(3, *shape)
    found = SSCD(resize=resize).prepare(images, CPU).double().numpy()
    assert found.shape == (3, 3, *size)
    expected = np.stack([pil_pipeline(image, size) for image in images])
    gap = np.abs(found - expected) * 255 * np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    assert gap.max() < levels + 1e-3


def test_features_are_the_networks(weights):
    images = random_images(5, 3, 32, 32)
    network = torch.jit.load(weights).double()
    expected = network(torch.from_numpy(np.stack([pil_pipeline(image, (320, 320)) for image in images])))
    torch.testing.assert_close(SSCD(weights).features(images, batch_size=2).double(), expected, rtol=0, atol=1e-6)


def test_bfloat16_is_near_float32_and_named(weights):
    images, fast = random_images(5, 3, 32, 32), SSCD(weights, precision="bfloat16")
    exact = SSCD(weights).features(images)
    found = fast.features(images)
    assert 0 < (found @ found.T - exact @ exact.T).abs().max() < 0.01
    assert fast.name.endswith("square320, bfloat16)")
    assert fast.fingerprint != SSCD(weights).fingerprint


def test_fingerprint_is_of_the_weights_and_the_resize(weights, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(Path(weights).read_bytes())
    other = tiny_weights(tmp_path / "other.pt", seed=1)
    assert SSCD(str(copy)).fingerprint == SSCD(weights).fingerprint
    prints = {SSCD(weights).fingerprint, SSCD(other).fingerprint, SSCD(weights, resize="short288").fingerprint}
    assert len(prints) == 3
    assert Pixels().fingerprint != Pixels(center=False).fingerprint


def test_published_weights_are_fetched_once_and_verified(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(sscd, "ADDRESS", f"file://{tmp_path}")
    tiny_weights(tmp_path / "sscd_disc_large.torchscript.pt")
    assert not SSCD.available()
    before = SSCD().features(random_images(2, 3, 32, 32))
    assert SSCD.available()
    (tmp_path / "sscd_disc_large.torchscript.pt").unlink()
    assert torch.equal(SSCD().features(random_images(2, 3, 32, 32)), before)
    assert sorted(path.name for path in (cache / "sscd").iterdir()) == [
        "sscd_disc_large.torchscript.pt",
        "sscd_disc_large.torchscript.sha256",
    ]
    tiny_weights(cache / "sscd" / "sscd_disc_large.torchscript.pt", seed=1)
    with pytest.raises(UserError, match="not the file it was at first use"):
        SSCD().features(random_images(2, 3, 32, 32))


def test_offline_names_the_address_and_the_place(cache, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(sscd.urllib.request, "urlopen", offline)
    with pytest.raises(UserError) as caught:
        SSCD("sscd_disc_mixup").features(random_images(1, 3, 32, 32))
    message = str(caught.value)
    assert "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt" in message
    assert str(cache / "sscd" / "sscd_disc_mixup.torchscript.pt") in message
    assert "\n" not in message


def test_a_broken_connection_leaves_no_file(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(sscd, "ADDRESS", f"file://{tmp_path}")
    tiny_weights(tmp_path / "sscd_disc_large.torchscript.pt")
    opened = sscd.urllib.request.urlopen

    def longer(*arguments, **more):
        answer = opened(*arguments, **more)
        answer.headers.replace_header("Content-Length", str(1 << 30))
        return answer

    monkeypatch.setattr(sscd.urllib.request, "urlopen", longer)
    with pytest.raises(UserError, match="the connection ended after"):
        SSCD().fingerprint  # noqa: B018
    assert list((cache / "sscd").iterdir()) == []


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: SSCD(resize="320"), "square320"),
        (lambda folder: SSCD(precision="bf16"), "bfloat16"),
        (lambda folder: SSCD("sscd_disc_mixap"), "did you mean 'sscd_disc_mixup'"),
        (lambda folder: SSCD(str(folder / "none.pt")), "none.pt"),
        (lambda folder: SSCD(str(folder / "text.pt")), "no TorchScript file"),
        (lambda folder: SSCD(str(folder / "image.pt")), "one vector an image"),
    ],
)
def test_bad_weights_are_one_line(make, word, tmp_path):
    (tmp_path / "text.pt").write_text("these are no weights")
    torch.jit.script(nn.Conv2d(3, 2, 3)).save(str(tmp_path / "image.pt"))
    with pytest.raises(UserError) as caught:
        make(tmp_path).features(random_images(2, 3, 16, 16))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


class Counting(SSCD):
    calls = 0

    def describe(self, images, device):
        type(self).calls += 1
        return super().describe(images, device)


def written_bank(path, seed=0):
    writer = BankWriter(path, {"seeds": range(6), "image_shape": (3, 16, 16)})
    writer.write(range(6), random_images(6, 3, 16, 16, seed=seed))
    return Bank.open(path)


@pytest.fixture
def counting(weights, monkeypatch):
    monkeypatch.setattr(sscd, "record_of", lambda _: {"name": "Counting"})
    Counting.calls = 0
    return lambda **more: Counting(weights, **more)


def test_features_of_a_bank_are_computed_once(tmp_path, counting):
    first = features_of_bank(written_bank(tmp_path), counting())
    second = features_of_bank(Bank.open(tmp_path), counting())
    assert torch.equal(first, second)
    assert Counting.calls == 1
    other = features_of_bank(Bank.open(tmp_path), counting(resize="short288"))
    assert Counting.calls == 2
    assert not torch.equal(first, other)


def test_features_of_changed_images_are_computed_again(tmp_path, counting):
    first = features_of_bank(written_bank(tmp_path), counting())
    (tmp_path / "images-00000000.npy").unlink()
    second = features_of_bank(written_bank(tmp_path, seed=9), counting())
    assert Counting.calls == 2
    assert not torch.equal(first, second)


@pytest.mark.parametrize("harm", ["flip", "cut", "text"])
def test_a_damaged_cache_is_not_believed(tmp_path, counting, harm):
    bank = written_bank(tmp_path)
    first = features_of_bank(bank, counting())
    (file,) = tmp_path.glob("features-*")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes({"flip": bytes(data), "cut": bytes(data[:-8]), "text": b"hello"}[harm])
    assert torch.equal(features_of_bank(bank, counting()), first)
    assert Counting.calls == 2
    assert torch.equal(features_of_bank(bank, counting()), first)
    assert Counting.calls == 2


def test_a_folder_that_cannot_be_written_costs_only_the_reuse(tmp_path, counting, monkeypatch):
    bank = written_bank(tmp_path)
    first = features_of_bank(bank, counting())
    (file,) = tmp_path.glob("features-*")
    file.unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("repro.files.writing.os.fsync", full)
    assert torch.equal(features_of_bank(bank, counting()), first)
    assert not list(tmp_path.glob("features-*"))
    assert not list(tmp_path.glob(".*"))


def test_cheap_features_are_not_stored(tmp_path):
    features_of_bank(written_bank(tmp_path), Pixels())
    assert not list(tmp_path.glob("features-*"))


def test_similarity_of_known_vectors():
    """Two images whose centred pixels stand at 60 degrees."""
    a = torch.tensor([[[[200, 0, 100, 100]]]], dtype=torch.uint8)
    b = torch.tensor([[[[150, 50, 187, 13]]]], dtype=torch.uint8)
    angle = math.degrees(math.acos(float(Pixels().features(a) @ Pixels().features(b).T)))
    assert angle == pytest.approx(60, abs=0.2)
