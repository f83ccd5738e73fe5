"""Random images, and systems whose images agree less and less."""

from __future__ import annotations

import torch


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def systems(count=4, n=60, shape=(3, 6, 6)):
    """Images of common origin with noise that grows from system to system and from row to row."""
    base = random_images(n, *shape).float()
    generator = torch.Generator().manual_seed(1)
    strength = torch.linspace(0, 60, n).view(-1, 1, 1, 1)
    noisy = [base + (0.2 + k) * strength * torch.randn(base.shape, generator=generator) for k in range(count)]
    return [images.clamp(0, 255).to(torch.uint8) for images in noisy]
