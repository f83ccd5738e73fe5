"""Four systems and what is found when they are compared."""

from __future__ import annotations

import pytest
import torch
from conditional_banks import CLASSES, LABELS, NOISES, SHAPE
from noisy_images import random_images, systems

from repro.banks import Bank
from repro.comparison import compare


@pytest.fixture(scope="module")
def images():
    return systems()


@pytest.fixture(scope="module")
def train(images):
    return torch.cat([random_images(30, 3, 6, 6, seed=9), images[0][::3]])


@pytest.fixture(scope="module")
def found(images, train):
    banks = [Bank.from_images(each, range(100, 160)) for each in images]
    return compare(banks, "Pixels", train, names=["a", "b", "c", "d"], control_seed=3)


@pytest.fixture(scope="module")
def drawn():
    """Three conditional systems, of which classes 0, 1, 2 agree less and less, and two unconditional ones."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 256, (NOISES * CLASSES, *SHAPE), generator=generator).float()
    strength = (40 + 15 * LABELS + torch.arange(len(LABELS))).view(-1, 1, 1, 1)
    systems = [base + k * strength * torch.randn(base.shape, generator=generator) for k in (0.2, 0.5, 0.8)]
    systems = [images.clamp(0, 255).to(torch.uint8) for images in systems]
    chosen = torch.arange(NOISES) * CLASSES + torch.arange(NOISES) % CLASSES
    plain = [images[chosen] for images in systems[:2]]
    return systems, plain
