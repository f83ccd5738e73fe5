"""Generators and discriminators of the GAN baselines, and their losses.

A generator maps latent normals (B, ``latent``) to images in [-1, 1]; a discriminator maps images to logits (B,). Both
exist in a residual and in a plain convolutional (DCGAN-like) form. SNGAN is the hinge loss with ``spectral_norm`` and
``pooling="sum"``, WGAN-GP the Wasserstein loss with :func:`gradient_penalty` and ``pooling="mean"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import UserError
from repro.networks.base import one_of
from repro.networks.layers.spectral import convolution_of, linear_of

__all__ = [
    "LOSSES",
    "ConvDiscriminator",
    "ConvGenerator",
    "GANLoss",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "gradient_penalty",
]


class ResidualGenerator(nn.Module):
    """Residual generator: a linear map to a coarse map, up-sampling blocks with batch norm, one last convolution.

    The defaults at 32 pixels are the SNGAN and WGAN-GP generators for CIFAR-10.

    Args:
        image_size: Pixels a side: ``bottom`` times a power of two.
        channels: Channels of the images.
        latent: Length of the latent vector.
        width: Channels of every feature map, or a list: of the coarse map and after each block.
        bottom: Pixels a side of the coarse map; None halves the image down to 4 to 7 pixels.
        squash: "tanh" for images in [-1, 1], or "sigmoid" for [0, 1] (they are then mapped to [-1, 1]).

    Raises:
        UserError: sizes that do not fit.

    Source: Miyato et al. 2018, arXiv:1802.05957, table 4; Gulrajani et al. 2017, arXiv:1704.00028, appendix F.

    Example:
        >>> ResidualGenerator(16, 1, latent=8, width=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent: int = 128,
        width: int | Sequence[int] = 256,
        bottom: int | None = None,
        squash: str = "tanh",
    ) -> None:
        super().__init__()
        self.latent = latent
        self.image_shape = (channels, image_size, image_size)
        self.squash = one_of("squash of ResidualGenerator", squash, ("tanh", "sigmoid"))
        self.bottom, halvings = _bottom("ResidualGenerator", image_size, bottom)
        widths = _widths("ResidualGenerator", width, halvings + 1)
        self.stem = linear_of(False, latent, self.bottom**2 * widths[0])
        self.blocks = nn.ModuleList(UpBlock(below, above) for below, above in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.final = convolution_of(False, widths[-1], channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """Computes images (B, C, H, W) in [-1, 1] of latent normals (B, latent)."""
        x = self.stem(z).unflatten(1, (-1, self.bottom, self.bottom))
        for block in self.blocks:
            x = block(x)
        x = self.final(F.relu(self.norm(x)))
        return torch.tanh(x) if self.squash == "tanh" else 2 * torch.sigmoid(x) - 1


class UpBlock(nn.Module):
    """Residual block of a generator that doubles the size, bilinearly, on both paths."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution_of(False, inputs, outputs, 3, gain=math.sqrt(2))
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution_of(False, outputs, outputs, 3, gain=math.sqrt(2))
        self.shortcut = convolution_of(False, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        main = self.conv1(_doubled(F.relu(self.norm1(x))))
        main = self.conv2(F.relu(self.norm2(main)))
        return main + self.shortcut(_doubled(x))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualDiscriminator(nn.Module):
    """Residual discriminator: blocks, the first of which halves the image, global pooling, one linear map.

    The defaults at 32 pixels are those of SNGAN for CIFAR-10; WGAN-GP has ``spectral_norm=False, pooling="mean"``.

    Args:
        image_size: Pixels a side, divisible by two as often as blocks halve.
        channels: Channels of the images.
        width: Channels of every feature map, or a list: after each block.
        halves: Which blocks halve the image; the first one must. None: down to at most 8 pixels (one block at least),
            then two blocks that keep the size.
        spectral_norm: Whether the weights are spectrally normalised.
        pooling: "sum" or "mean" over the last map.

    Raises:
        UserError: sizes that do not fit.

    Source: Miyato et al. 2018, arXiv:1802.05957, table 4; Gulrajani et al. 2017, arXiv:1704.00028, appendix F.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int | Sequence[int] = 128,
        halves: Sequence[bool] | None = None,
        spectral_norm: bool = True,
        pooling: str = "sum",
    ) -> None:
        super().__init__()
        self.pooling = one_of("pooling of ResidualDiscriminator", pooling, ("sum", "mean"))
        if halves is None:
            halves = [True] * _halvings(image_size, 8) + [False, False]
        if not halves or not halves[0]:
            raise UserError("the first block of ResidualDiscriminator halves the image; let halves begin with true")
        if image_size % 2 ** sum(halves):
            raise UserError(f"image_size {image_size} cannot be halved {sum(halves)} times by ResidualDiscriminator")
        widths = _widths("ResidualDiscriminator", width, len(halves))
        blocks: list[nn.Module] = [FirstBlock(channels, widths[0], spectral_norm)]
        for below, above, half in zip(widths, widths[1:], halves[1:], strict=False):
            blocks.append(DownBlock(below, above, half, spectral_norm))
        self.blocks = nn.ModuleList(blocks)
        self.head = linear_of(spectral_norm, widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits (B,) of images (B, C, H, W) in [-1, 1]; high means real."""
        for block in self.blocks:
            x = block(x)
        x = F.relu(x)
        pooled = x.sum((2, 3)) if self.pooling == "sum" else x.mean((2, 3))
        return self.head(pooled).squeeze(1)


class FirstBlock(nn.Module):
    """First block of a discriminator, on the image itself: no activation in front, the shortcut pools first."""

    def __init__(self, inputs: int, outputs: int, spectral: bool) -> None:
        super().__init__()
        self.conv1 = convolution_of(spectral, inputs, outputs, 3, gain=math.sqrt(2))
        self.conv2 = convolution_of(spectral, outputs, outputs, 3, gain=math.sqrt(2))
        self.shortcut = convolution_of(spectral, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""
        main = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        return main + self.shortcut(F.avg_pool2d(x, 2))


class DownBlock(nn.Module):
    """Residual block of a discriminator; as in the reference code both paths start from the activated input."""

    def __init__(self, inputs: int, outputs: int, half: bool, spectral: bool) -> None:
        super().__init__()
        self.half = half
        self.conv1 = convolution_of(spectral, inputs, inputs, 3, gain=math.sqrt(2))
        self.conv2 = convolution_of(spectral, inputs, outputs, 3, gain=math.sqrt(2))
        self.shortcut = convolution_of(spectral, inputs, outputs, 1) if half or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H', W'), halved or not."""
        x = F.relu(x)
        joined = self.conv2(F.relu(self.conv1(x))) + self.shortcut(x)
        return F.avg_pool2d(joined, 2) if self.half else joined


class ConvGenerator(nn.Module):
    """DCGAN-like generator: a linear map to a coarse map, transposed convolutions with batch norm, a convolution.

    Args:
        image_size: Pixels a side: ``bottom`` times a power of two.
        channels: Channels of the images.
        latent: Length of the latent vector.
        width: Channels after the last transposed convolution; each one before it has twice as many.
        bottom: Pixels a side of the coarse map; None halves the image down to 4 to 7 pixels.

    Raises:
        UserError: sizes that do not fit.

    Source: Radford et al. 2016, arXiv:1511.06434, section 3; Miyato et al. 2018, arXiv:1802.05957, table 3.
    """

    def __init__(
        self, image_size: int, channels: int, latent: int = 128, width: int = 64, bottom: int | None = None
    ) -> None:
        super().__init__()
        self.latent = latent
        self.image_shape = (channels, image_size, image_size)
        self.bottom, halvings = _bottom("ConvGenerator", image_size, bottom)
        widths = [width << level for level in reversed(range(halvings + 1))]
        self.stem = linear_of(False, latent, self.bottom**2 * widths[0])
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for below, above in pairwise(widths):
            up = nn.ConvTranspose2d(below, above, 4, 2, padding=1)
            nn.init.xavier_uniform_(up.weight)
            layers += [up, nn.BatchNorm2d(above), nn.ReLU()]
        self.layers = nn.Sequential(*layers, convolution_of(False, width, channels, 3))

    def forward(self, z: Tensor) -> Tensor:
        """Computes images (B, C, H, W) in [-1, 1] of latent normals (B, latent)."""
        return torch.tanh(self.layers(self.stem(z).unflatten(1, (-1, self.bottom, self.bottom))))


class ConvDiscriminator(nn.Module):
    """DCGAN-like discriminator: pairs of convolutions, the second of each halves the size, one linear map.

    Args:
        image_size: Pixels a side, even.
        channels: Channels of the images.
        width: Channels of the first pair; each further pair has twice as many.
        spectral_norm: Whether the weights are spectrally normalised.

    Raises:
        UserError: an odd size.

    Source: Miyato et al. 2018, arXiv:1802.05957, table 3.
    """

    def __init__(self, image_size: int, channels: int, width: int = 64, spectral_norm: bool = True) -> None:
        super().__init__()
        bottom, halvings = _bottom("ConvDiscriminator", image_size, None)
        layers: list[nn.Module] = []
        inputs = channels
        for level in range(halvings):
            outputs = width << level
            layers += [convolution_of(spectral_norm, inputs, outputs, 3), nn.LeakyReLU(0.1)]
            layers += [convolution_of(spectral_norm, outputs, 2 * outputs, 4, 2), nn.LeakyReLU(0.1)]
            inputs = 2 * outputs
        layers += [convolution_of(spectral_norm, inputs, inputs, 3), nn.LeakyReLU(0.1), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.head = linear_of(spectral_norm, inputs * bottom**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits (B,) of images (B, C, H, W) in [-1, 1]; high means real."""
        return self.head(self.layers(x)).squeeze(1)


class GANLoss(NamedTuple):
    """A pair of losses, each a mean over the batch, to be minimised.

    Attributes:
        discriminator: From the logits of real and of generated images, (B,) each.
        generator: From the logits of generated images, (B,).
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


LOSSES = {
    "hinge": GANLoss(_hinge, lambda fake: -fake.mean()),
    "wasserstein": GANLoss(_wasserstein, lambda fake: -fake.mean()),
    "nonsaturating": GANLoss(_cross_entropy, lambda fake: F.softplus(-fake).mean()),
}


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, scale: float = 10.0
) -> Tensor:
    r"""Returns the penalty of WGAN-GP on the discriminator's slope between real and generated images.

    .. math:: \lambda\, E\, (\|\nabla_{\hat x} D(\hat x)\| - 1)^2, \qquad \hat x = a\, x + (1 - a)\, \tilde x

    Args:
        discriminator: From images to logits.
        real: Real images x, shape (B, C, H, W).
        fake: Generated images, shape (B, C, H, W).
        mix: The weights a, uniform on [0, 1], shape (B,).
        scale: :math:`\lambda`.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.

    Example:
        >>> images = torch.zeros(2, 1, 1, 1)
        >>> gradient_penalty(lambda x: 3 * x.sum((1, 2, 3)), images, images, torch.zeros(2)).item()
        40.0
    """
    mix = mix.view(-1, 1, 1, 1)
    between = (mix * real.detach() + (1 - mix) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return scale * (slope.flatten(1).norm(dim=1) - 1).square().mean()


def _halvings(image_size: int, until: int) -> int:
    count = 0
    while image_size % 2 == 0 and (count == 0 or image_size > until):
        image_size, count = image_size // 2, count + 1
    return count


def _bottom(name: str, image_size: int, bottom: int | None) -> tuple[int, int]:
    """Pixels a side of the coarse map, and how often it is doubled."""
    if bottom is None:
        bottom = image_size
        while bottom % 2 == 0 and bottom >= 8:
            bottom //= 2
    halvings = (image_size // max(bottom, 1)).bit_length() - 1
    if bottom < 1 or halvings < 1 or bottom << halvings != image_size:
        raise UserError(
            f"{name}: image_size {image_size} is not {bottom} times a power of two above 1; "
            "give a size such as 8, 16, 28, 32 or 64"
        )
    return bottom, halvings


def _widths(name: str, width: int | Sequence[int], count: int) -> list[int]:
    widths = [width] * count if isinstance(width, int) else list(width)
    if len(widths) != count or min(widths) < 1:
        raise UserError(f"{name}: width {width} must be one number or {count} numbers, each at least 1")
    return widths
