r"""Variational auto-encoder of the baselines, with a standard normal prior or a VampPrior, and the terms of its loss.

Pixels inside are flat and in [0, 1]; :meth:`VAE.forward` gives images in [-1, 1]. The loss of an image is
``-reconstruction + beta * divergence``, the two terms of :meth:`VAE.terms`; beta rises to 1 while training warms up.

Source: Kingma & Welling 2014, arXiv:1312.6114; Tomczak & Welling 2018, arXiv:1705.07120.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import check_at_least
from repro.networks.base import one_of

__all__ = ["VAE", "log_bernoulli", "log_logistic_bins", "log_normal", "to_pixels"]

_LOG_VARIANCE = (-6.0, 2.0)
_LOG_SCALE = (-4.5, 0.0)
_BINS = 256


class GatedLinear(nn.Module):
    """A linear layer multiplied by the sigmoid of another one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs) to (B, outputs)."""
        return self.value(x) * torch.sigmoid(self.gate(x))


class VAE(nn.Module):
    r"""Auto-encoder with two gated hidden layers on each side and a diagonal normal posterior.

    With ``prior="vamp"`` the prior is the mixture of the posteriors of trained pseudo-inputs :math:`u_k`:

    .. math:: p(z) = \frac1K \sum_{k=1}^K q(z | u_k)

    Args:
        image_size: Pixels a side, or (height, width).
        channels: Channels of the images.
        latent: Length of the latent vector.
        hidden: Width of the hidden layers.
        likelihood: "logistic": a logistic distribution over 256 bins for each pixel; "bernoulli": for black and white.
        prior: "standard" or "vamp".
        components: Number K of pseudo-inputs.
        pseudo_mean: Mean of the pseudo-inputs' starting values. Outside [0, 1] they are clipped and never move: so it
            is with the reference code's own default of -0.05.
        pseudo_std: Their standard deviation.

    Attributes:
        image_shape: (C, H, W).
        noise_size: Normals that one image is drawn from: ``latent``, and one more that picks the VampPrior's component.

    Raises:
        UserError: an unknown option or a size below 1.

    Example:
        >>> VAE(28, 1, latent=8, hidden=16)(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: int,
        latent: int = 40,
        hidden: int = 300,
        likelihood: str = "logistic",
        prior: str = "standard",
        components: int = 500,
        pseudo_mean: float = 0.5,
        pseudo_std: float = 0.3,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_shape = (channels, height, width)
        check_at_least(1, "VAE", image_size=min(height, width), channels=channels, latent=latent)
        check_at_least(1, "VAE", hidden=hidden, components=components)
        self.likelihood = one_of("likelihood of VAE", likelihood, ("logistic", "bernoulli"))
        self.prior = one_of("prior of VAE", prior, ("standard", "vamp"))
        self.latent = latent
        self.noise_size = latent + (prior == "vamp")
        pixels = math.prod(self.image_shape)
        self.encoder = nn.Sequential(GatedLinear(pixels, hidden), GatedLinear(hidden, hidden))
        self.posterior_mean = nn.Linear(hidden, latent)
        self.posterior_log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(GatedLinear(latent, hidden), GatedLinear(hidden, hidden))
        self.pixel_mean = nn.Linear(hidden, pixels)
        self.pixel_log_scale = nn.Linear(hidden, pixels) if likelihood == "logistic" else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_features))
        self.pseudo = None
        if prior == "vamp":
            self.pseudo = nn.Parameter(pseudo_mean + pseudo_std * torch.randn(components, pixels))

    def forward(self, noise: Tensor) -> Tensor:
        """The images that unit normals (B, ``noise_size``) stand for: decoder means, (B, C, H, W) in [-1, 1]."""
        mean, _ = self.decode(self.latent_of(noise))
        return (2 * mean - 1).unflatten(1, self.image_shape)

    def latent_of(self, noise: Tensor) -> Tensor:
        r"""Returns the draw from the prior, (B, latent), that unit normals (B, ``noise_size``) stand for.

        For the VampPrior the last normal n picks the component :math:`\lfloor K \Phi(n) \rfloor`, the others are
        scaled by its posterior.
        """
        if self.pseudo is None:
            return noise
        means, log_variances = self.posterior(self.pseudo_inputs())
        which = (torch.special.ndtr(noise[:, -1].double()) * len(means)).long().clamp(max=len(means) - 1)
        return means[which] + noise[:, :-1] * (log_variances[which] / 2).exp()

    def pseudo_inputs(self) -> Tensor:
        """Returns the pseudo-inputs, clipped to [0, 1], shape (K, pixels)."""
        assert self.pseudo is not None, "only the VampPrior has pseudo-inputs"
        return self.pseudo.clamp(0, 1)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the mean and log variance of the latent, (B, latent) each, for flat pixels (B, pixels) in [0, 1]."""
        features = self.encoder(pixels)
        return self.posterior_mean(features), self.posterior_log_variance(features).clamp(*_LOG_VARIANCE)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns what latents (B, latent) decode to.

        Returns:
            Mean in [0, 1] and log scale (None for "bernoulli") of every pixel, (B, pixels) each.
        """
        features = self.decoder(z)
        mean = torch.sigmoid(self.pixel_mean(features))
        if self.pixel_log_scale is None:
            return mean, None
        half_bin = 0.5 / _BINS
        return mean.clamp(half_bin, 1 - half_bin), self.pixel_log_scale(features).clamp(*_LOG_SCALE)

    def log_prior(self, z: Tensor) -> Tensor:
        """Computes the log density of the prior at latents (B, latent), shape (B,)."""
        if self.pseudo is None:
            return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
        means, log_variances = self.posterior(self.pseudo_inputs())
        return log_normal(z[:, None], means, log_variances).logsumexp(1) - math.log(len(means))

    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        """Computes the log probability of flat pixels (B, pixels) in [0, 1] given latents (B, latent), shape (B,)."""
        mean, log_scale = self.decode(z)
        return log_bernoulli(pixels, mean) if log_scale is None else log_logistic_bins(pixels, mean, log_scale)

    def terms(self, pixels: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the reconstruction log probability and divergence from the prior, at one draw of the posterior.

        Args:
            pixels: Flat pixels in [0, 1], shape (B, pixels); see :func:`to_pixels`.
            eps: Unit normals, shape (B, latent).

        Returns:
            ``reconstruction`` and ``divergence``, shape (B,) each, in nats an image.
        """
        mean, log_variance = self.posterior(pixels)
        z = mean + eps * (log_variance / 2).exp()
        return self.log_likelihood(pixels, z), log_normal(z, mean, log_variance) - self.log_prior(z)


def to_pixels(images: Tensor) -> Tensor:
    """Flattens images (B, C, H, W) in [-1, 1] to pixels (B, C H W) in [0, 1].

    Example:
        >>> to_pixels(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    return (images.flatten(1) + 1) / 2


def log_normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Computes the log density of a diagonal normal, summed over the last dimension.

    Example:
        >>> zero = torch.zeros(1)
        >>> round(log_normal(zero, zero, zero).item(), 4)
        -0.9189
    """
    squared = (x - mean).square() / log_variance.exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)


def log_bernoulli(x: Tensor, mean: Tensor, margin: float = 1e-5) -> Tensor:
    """Computes the log probability of values in [0, 1] under Bernoulli means, summed over the last dimension.

    The means are kept ``margin`` away from 0 and 1.
    """
    return -F.binary_cross_entropy(mean.clamp(margin, 1 - margin), x, reduction="none").sum(-1)


def log_logistic_bins(x: Tensor, mean: Tensor, log_scale: Tensor, floor: float = 1e-7) -> Tensor:
    r"""Computes the log probability, under logistic distributions, of the 1/256 wide bins that hold ``x``.

    It is summed over the last dimension.

    .. math::
        \log\Big(\sigma\big(\tfrac{b + 1/256 - \mu}{s}\big) - \sigma\big(\tfrac{b - \mu}{s}\big) + \text{floor}\Big)

    Args:
        x: Values in [0, 1]; b is x rounded down to a multiple of 1/256.
        mean: :math:`\mu`.
        log_scale: :math:`\log s`.
        floor: Added inside the logarithm.

    Source: Kingma et al. 2016, arXiv:1606.04934, appendix; used by the VampPrior reference code.
    """
    scale = log_scale.exp()
    low = (torch.floor(x * _BINS) / _BINS - mean) / scale
    return (torch.sigmoid(low + 1 / (_BINS * scale)) - torch.sigmoid(low) + floor).log().sum(-1)
