r"""A known distribution of images, an equal mixture of Gaussians on random planes of low dimension, and its denoiser.

.. math:: x_0 \sim \frac1K \sum_k N(0, U_k U_k^T), \qquad U_k \in R^{n \times d} \text{ with orthonormal columns}

Its samples are the data set ``LowRankMixture``, which makes the same planes from the same plain numbers.

Source: Zhang et al. 2024, arXiv:2310.05264, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser
from repro.errors import UserError
from repro.kernels import Kernel
from repro.noise import mixture_bases

__all__ = ["LowRankMixtureDenoiser", "mixture_bases"]


class LowRankMixtureDenoiser(Denoiser):
    r"""Posterior mean when the data are an equal mixture of K Gaussians on random planes (paper, proposition 2).

    .. math:: \hat x_0 = \frac{1}{\alpha_t} \frac{1}{1 + r^2} \sum_k \omega_k U_k U_k^T x_t, \qquad
              \omega = \mathrm{softmax}_k\Big(\frac{\|U_k^T x_t\|^2}{2 \alpha_t^2 r^2 (1 + r^2)}\Big),
              \quad r = \sigma_t / \alpha_t

    The planes are those of the data set ``LowRankMixture`` with the same settings. A label
    names the component, so the conditional form is that of one Gaussian.

    Args:
        kernel: The perturbation kernel.
        image_shape: (C, H, W).
        components: K.
        rank: d, the dimension of the planes.
        bases_seed: Number of the planes.

    Raises:
        UserError: no component, or a rank that is not from 1 to C H W.

    Example:
        >>> from repro.kernels import EDM
        >>> denoiser = LowRankMixtureDenoiser(EDM(), components=1, rank=48)
        >>> denoiser.denoise(torch.ones(1, 3, 4, 4), torch.tensor(1.0)).mean().item()
        0.5
    """

    def __init__(
        self,
        kernel: Kernel,
        image_shape: tuple[int, int, int] = (3, 4, 4),
        components: int = 2,
        rank: int = 7,
        bases_seed: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.kernel, self.image_shape, self.num_classes = kernel, (channels, height, width), components
        bases = mixture_bases(image_shape, components, rank, bases_seed)
        self.register_buffer("bases", bases, persistent=False)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        x = x_t.to(self.bases.dtype)
        alpha, sigma = (scale.flatten(1) if scale.ndim else scale for scale in self.scales(x, t))
        variance = (sigma / alpha).square()
        inside = torch.einsum("knd,bn->bkd", self.bases, x.flatten(1) / alpha)
        if labels is None:
            weights = (inside.square().sum(2) / (2 * variance * (1 + variance))).softmax(1)
        else:
            weights = self._one_component(labels).to(x)
        mean = torch.einsum("bk,knd,bkd->bn", weights, self.bases, inside) / (1 + variance)
        return mean.view(x_t.shape).to(x_t.dtype)

    def _one_component(self, labels: Tensor) -> Tensor:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise UserError(f"a label is outside the {self.num_classes} components 0 to {self.num_classes - 1}")
        return torch.nn.functional.one_hot(labels, self.num_classes)
