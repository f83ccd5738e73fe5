"""What is printed."""

import pytest
import torch

from repro.banks import Bank
from repro.comparison import compare

N = 60


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def systems(count=4, n=N, shape=(3, 6, 6)):
    """Images of common origin with noise that grows from system to system and from row to row."""
    base = random_images(n, *shape).float()
    generator = torch.Generator().manual_seed(1)
    strength = torch.linspace(0, 60, n).view(-1, 1, 1, 1)
    noisy = [base + (0.2 + k) * strength * torch.randn(base.shape, generator=generator) for k in range(count)]
    return [images.clamp(0, 255).to(torch.uint8) for images in noisy]


@pytest.fixture(scope="module")
def images():
    return systems()


@pytest.fixture(scope="module")
def train(images):
    return torch.cat([random_images(30, 3, 6, 6, seed=9), images[0][::3]])


@pytest.fixture(scope="module")
def found(images, train):
    banks = [Bank.from_images(each, range(100, 100 + N)) for each in images]
    return compare(banks, "Pixels", train, names=["a", "b", "c", "d"], control_seed=3)


def test_the_printed_tables_hold_every_rate(found):
    text = str(found)
    for row in found.table():
        assert f"{row['rate']:.3f}" in text
        assert f"{row['low']:.3f}-{row['high']:.3f}" in text
        assert f"{row['control_low']:.3f}-{row['control_high']:.3f}" in text
    for row in found.table("gl"):
        assert f"{row['count']} of {N}" in text


def test_many_systems_are_told_by_their_ends():
    images = systems(count=14)
    found = compare([Bank.from_images(each) for each in images], "Pixels", names=[f"s{k}" for k in range(14)])
    text = str(found)
    assert "highest and lowest of 91 pairs" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if not line.startswith("warning:")) <= 100
    rows = sorted((row for row in found.table("pairs") if row["score"] == "RP"), key=lambda row: -row["rate"])
    for row in (*rows[:5], *rows[-5:]):
        line = next(line for line in text.splitlines() if f" {row['first']} " in line and f" {row['second']} " in line)
        assert f"{row['rate']:.3f}" in line
        assert f"{row['control_rate']:.3f}" in line
