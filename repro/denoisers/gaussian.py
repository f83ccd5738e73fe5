"""The exact denoisers of Gaussian data: independent pixels, and a training set's mean and covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser, training_set
from repro.errors import UserError
from repro.images import to_float
from repro.kernels import Kernel

if TYPE_CHECKING:
    from repro.data.base import ImageData

__all__ = ["FittedGaussianDenoiser", "GaussianDenoiser"]


class GaussianDenoiser(Denoiser):
    r"""Posterior mean when every pixel of the data is :math:`N(\mu, c^2)`.

    .. math:: \hat x_0 = \mu + \frac{\alpha_t c^2}{\alpha_t^2 c^2 + \sigma_t^2} (x_t - \alpha_t \mu)

    Its probability-flow equation has a closed form, :meth:`transport`, that every deterministic sampler must reach.

    Args:
        kernel: The perturbation kernel.
        image_shape: (C, H, W).
        mean: :math:`\mu`.
        std: :math:`c > 0`.

    Raises:
        UserError: ``std`` not above 0.
    """

    def __init__(
        self, kernel: Kernel, image_shape: tuple[int, int, int] = (1, 8, 8), mean: float = 0.0, std: float = 0.5
    ) -> None:
        super().__init__()
        if std <= 0:
            raise UserError(f"std is {std:g}; give a standard deviation above 0")
        channels, height, width = image_shape
        self.kernel, self.image_shape, self.mean, self.std = kernel, (channels, height, width), mean, std

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        alpha, sigma = self.scales(x_t, t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def transport(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""Carries ``x_t`` along the probability-flow equation from time t to time s, shape of ``x_t``.

        .. math:: x_s = \alpha_s \mu + \sqrt{\frac{\alpha_s^2 c^2 + \sigma_s^2}{\alpha_t^2 c^2 + \sigma_t^2}}
                  (x_t - \alpha_t \mu)
        """
        alpha_t, sigma_t = self.scales(x_t, t)
        alpha_s, sigma_s = self.scales(x_t, s)
        growth = ((alpha_s * self.std) ** 2 + sigma_s**2).sqrt() / ((alpha_t * self.std) ** 2 + sigma_t**2).sqrt()
        return alpha_s * self.mean + growth * (x_t - alpha_t * self.mean)


class FittedGaussianDenoiser(Denoiser):
    r"""Posterior mean when the data are the Gaussian with the mean and covariance of a training set: a straight line.

    .. math:: \hat x_0 = \mu + V \,\mathrm{diag}\Big(\frac{\alpha_t \lambda}{\alpha_t^2 \lambda + \sigma_t^2}\Big)
              V^T (x_t - \alpha_t \mu), \qquad \Sigma = V \,\mathrm{diag}(\lambda)\, V^T

    It is the best denoiser that is affine in :math:`x_t`. With fewer images than pixels the covariance has a low rank,
    and what is drawn stays in the span of the images. With labels, each class has a Gaussian of its own.

    Args:
        images: The training set: a data plug-in, or a tensor, uint8 (N, C, H, W) or floats in [-1, 1].
        kernel: The perturbation kernel.
        labels: Class of each image, int64 (N,), for the conditional form on a tensor.
        conditional: Take the labels of the data plug-in, for the conditional form.
        shrinkage: Part of the covariance that is replaced by its mean variance times the identity, in [0, 1]; None
            takes Ledoit and Wolf's, which suits few images.

    Raises:
        UserError: no image, a class without images, labels of another length, classes asked of data that have none, or
            a shrinkage outside [0, 1].

    Source: Wang and Vastola 2023, arXiv:2311.10892 (trained denoisers are nearly this one at high noise); Ledoit and
    Wolf 2004, J. Multivariate Anal. 88.

    Example:
        >>> from repro.kernels import EDM
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> line = FittedGaussianDenoiser(images, EDM())
        >>> line.denoise(torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64), torch.tensor(1.0)).item()
        0.2
    """

    def __init__(
        self,
        images: ImageData | Tensor,
        kernel: Kernel,
        labels: Tensor | None = None,
        conditional: bool = False,
        shrinkage: float | None = 0.0,
    ) -> None:
        super().__init__()
        self.data, images, labels = training_set(images, labels, conditional)
        if shrinkage is not None and not 0 <= shrinkage <= 1:
            raise UserError(f"shrinkage is {shrinkage:g}; give a part from 0 to 1, or null for Ledoit and Wolf's")
        self.kernel, self.image_shape, self.shrinkage = kernel, tuple(images.shape[1:]), shrinkage
        self.num_classes = 0 if labels is None else int(labels.max()) + 1
        points = to_float(images).double().flatten(1)
        groups = [points] if labels is None else [points[labels == number] for number in range(self.num_classes)]
        if empty := [str(number) for number, group in enumerate(groups) if not len(group)]:
            raise UserError(f"class {', '.join(empty)} has no image; every class needs one")
        fits = [_gaussian_of(group, shrinkage) for group in groups]
        for name, part in zip(("means", "variances", "axes"), zip(*fits, strict=True), strict=True):
            self.register_buffer(name, torch.stack(part), persistent=False)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        alpha, sigma = (scale.flatten(1) if scale.ndim else scale for scale in self.scales(x_t.double(), t))
        mean, variances, axes = self._parts(labels, len(x_t))
        gain = alpha * variances / (alpha**2 * variances + sigma**2)
        along = torch.einsum("bdk,bd->bk", axes, x_t.double().flatten(1) - alpha * mean)
        return (mean + torch.einsum("bdk,bk->bd", axes, gain * along)).view(x_t.shape).to(x_t.dtype)

    def transport(self, x_t: Tensor, t: Tensor, s: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Carries ``x_t`` along the probability-flow equation from time t to time s, shape of ``x_t``.

        .. math:: x_s = \alpha_s \mu + V \,\mathrm{diag}\sqrt{\frac{\alpha_s^2 \lambda + \sigma_s^2}
                  {\alpha_t^2 \lambda + \sigma_t^2}}\, V^T (x_t - \alpha_t \mu)
        """
        alpha_t, sigma_t = (scale.flatten(1) if scale.ndim else scale for scale in self.scales(x_t.double(), t))
        alpha_s, sigma_s = (scale.flatten(1) if scale.ndim else scale for scale in self.scales(x_t.double(), s))
        mean, variances, axes = self._parts(labels, len(x_t))
        rest = x_t.double().flatten(1) - alpha_t * mean
        along = torch.einsum("bdk,bd->bk", axes, rest)
        growth = ((alpha_s**2 * variances + sigma_s**2) / (alpha_t**2 * variances + sigma_t**2)).sqrt()
        outside = sigma_s / sigma_t * (rest - torch.einsum("bdk,bk->bd", axes, along))
        moved = alpha_s * mean + outside + torch.einsum("bdk,bk->bd", axes, growth * along)
        return moved.view(x_t.shape).to(x_t.dtype)

    def _parts(self, labels: Tensor | None, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B, d), variances (B, k) and axes (B, d, k) of each image's Gaussian."""
        if self.num_classes and labels is None:
            raise UserError(f"this denoiser has {self.num_classes} classes; give a label each")
        rows = torch.zeros(count, dtype=torch.int64, device=self.means.device) if labels is None else labels
        if not self.num_classes:
            return tuple(part.expand(count, *part.shape[1:]) for part in (self.means, self.variances, self.axes))  # type: ignore[return-value]
        return self.means[rows], self.variances[rows], self.axes[rows]


def _gaussian_of(points: Tensor, shrinkage: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), variances (d,) and axes (d, d) of points (n, d)."""
    mean = points.mean(0)
    covariance = (points - mean).T @ (points - mean) / len(points)
    if shrinkage is None:
        from sklearn.covariance import ledoit_wolf_shrinkage

        shrinkage = float(ledoit_wolf_shrinkage(points.numpy()))
    pixels = points.shape[1]
    covariance = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / pixels * torch.eye(pixels).double()
    variances, axes = torch.linalg.eigh(covariance)
    return mean, variances.clamp(min=0), axes
