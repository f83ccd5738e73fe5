"""Whom a descriptor was made for: images of that kind pass, others are told how they differ."""

import pytest
import torch

from repro.descriptors.domain import Domain, contrast, roughness
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SmallSSCD
from repro.registry import build


def noise(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def smooth(count, channels, side):
    """Images of 36 colours that blend into each other."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(count, channels, 6, 6, generator=generator) * 255
    return torch.nn.functional.interpolate(corners, size=(side, side), mode="bilinear").round().to(torch.uint8)


def test_statistics_equal_counting_by_hand():
    images = torch.tensor([[[[0, 100], [50, 150]]], [[[7, 7], [7, 7]]]], dtype=torch.uint8)
    assert contrast(images).tolist() == pytest.approx([(12500 / 4) ** 0.5, 0.0])
    assert roughness(images).tolist() == pytest.approx([75 / (12500 / 4) ** 0.5, 0.0])
    assert float(roughness(noise(200, 1, 8, 8)).mean()) == pytest.approx(2 / 3**0.5, abs=0.03)


def test_digits_fit_the_digits_descriptor():
    assert SmallSSCD("digits").warning(build("data", "Digits").images()) is None


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (noise(50, 1, 8, 8), ["they are roughness 1.2"]),
        (noise(50, 1, 16, 16), ["they are 16 x 16, roughness 1.2"]),
        (noise(50, 3, 8, 8), ["they are coloured, roughness"]),
        (torch.full((4, 1, 8, 8), 9, dtype=torch.uint8), ["they are contrast 0:"]),
    ],
)
def test_other_images_are_told_how_they_differ(images, words):
    line = SmallSSCD("digits").warning(images)
    assert line.startswith("SmallSSCD(digits) was made for 8 x 8 grey digits; ")
    assert all(word in line for word in words)
    assert "\n" not in line


def test_photographs_of_one_size_fit_and_of_another_do_not():
    assert SmallSSCD("cifar").warning(smooth(50, 3, 32)) is None
    assert "they are 16 x 16:" in SmallSSCD("cifar").warning(smooth(50, 3, 16))
    assert build("descriptors", "SSCD", weights="sscd_disc_mixup").warning(smooth(50, 3, 64)) is None


def test_descriptors_that_know_nothing_say_nothing():
    assert Pixels().domain is None
    assert Pixels().warning(noise(5, 1, 8, 8)) is None


def test_a_domain_is_data():
    one, other = (Domain("x", 1, (8, 8), (1.0, 2.0), (0.0, 1.0)) for _ in range(2))
    assert one == other
