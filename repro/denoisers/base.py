r"""The contract of denoisers, and a denoiser seen through another kernel."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from repro.devices import onto
from repro.errors import UserError
from repro.kernels import Kernel
from repro.registry import Plugin

if TYPE_CHECKING:
    from repro.data.base import ImageData

__all__ = ["Denoiser", "UnderKernel", "training_set"]


class Denoiser(nn.Module, Plugin):
    r"""Base of the denoisers; one of them defines :meth:`denoise`.

    In all methods ``x_t`` are noisy images, shape (B, C, H, W); ``t`` is one time, shape (), or one for each image,
    shape (B,); ``labels`` are class numbers, int64 of shape (B,), or None. Results have the shape and dtype of ``x_t``.

    Attributes:
        kernel: The perturbation kernel that noised the images.
        image_shape: (C, H, W).
        num_classes: Number of classes that labels may name; 0 for an unconditional denoiser.
        data: The data that a closed form is made of, or None.
        guided_channels: How many leading channels guidance pushes; None for all of them.
    """

    kernel: Kernel
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    data: ImageData | None = None
    guided_channels: int | None = None

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Computes the posterior mean of the clean images."""

    def eps(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Computes the predicted noise :math:`(x_t - \alpha_t \hat x_0) / \sigma_t`."""
        alpha, sigma = self.scales(x_t, t)
        return (x_t - alpha * self.denoise(x_t, t, labels)) / sigma

    def score(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Computes the gradient of the log density, :math:`-\hat\epsilon / \sigma_t` (paper, lemma 1)."""
        return -self.eps(x_t, t, labels) / self.scales(x_t, t)[1]

    def scales(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Computes :math:`\alpha_t` and :math:`\sigma_t` in the dtype of ``x_t``, shaped to multiply images.

        Those of one time for all are single numbers where ``t`` is; of a CPU an accelerator takes them as they are.
        """
        t = _time_for(x_t, t)
        alpha, sigma = self.kernel.alpha(t), self.kernel.sigma(t)
        if t.ndim:
            alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
        return alpha.to(x_t.dtype), sigma.to(x_t.dtype)


def _time_for(x_t: Tensor, t: Tensor) -> Tensor:
    """Times of images, precise enough for them: one for each beside the images, one for all where it is."""
    return onto(x_t.device if t.ndim else t.device, t, torch.promote_types(t.dtype, x_t.dtype))


class UnderKernel(Denoiser):
    r"""A denoiser seen through another kernel: the same answers, at equal ratios, for images scaled the other way.

    .. math:: \hat x_0(x_t, t) = \hat x_0^{\,inner}\big(x_t\, \alpha'_{t'} / \alpha_t,\; t'\big), \qquad
              \sigma'_{t'} / \alpha'_{t'} = \sigma_t / \alpha_t

    So a network trained under one kernel is sampled under another, in its times and from its starting noise.

    Args:
        denoiser: The denoiser, under its own kernel (primed).
        kernel: The kernel under which it is to be used.
    """

    def __init__(self, denoiser: Denoiser, kernel: Kernel) -> None:
        super().__init__()
        self.denoiser, self.kernel = denoiser, kernel
        self.image_shape, self.num_classes = denoiser.image_shape, denoiser.num_classes
        self.guided_channels = denoiser.guided_channels

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t = _time_for(x_t, t)
        inner_t = self.denoiser.kernel.time_of_ratio(self.kernel.ratio(t))
        inner_alpha, alpha = self.denoiser.scales(x_t, inner_t)[0], self.scales(x_t, t)[0]
        return self.denoiser.denoise(x_t * (inner_alpha / alpha), inner_t, labels)


def training_set(
    images: ImageData | Tensor, labels: Tensor | None, conditional: bool
) -> tuple[ImageData | None, Tensor, Tensor | None]:
    """Unpacks the training set of a closed form: its data plug-in or None, images (N, C, H, W), labels (N,) or None.

    Of a plug-in these are the images that a training is shown, mirrored copies included.

    Args:
        images: A data plug-in, or a tensor, uint8 or floats in [-1, 1].
        labels: Class of each image of a tensor, int64 (N,), or None.
        conditional: Whether the labels of a data plug-in are taken.

    Raises:
        UserError: no image, labels of another length, or classes asked of data that have none.
    """
    data = None
    if not isinstance(images, Tensor):
        if conditional and not images.num_classes:
            raise UserError("the conditional form needs data with classes; these have none")
        data, (images, classes) = images, images.shown()
        labels = classes if conditional else None
    if images.ndim != 4 or not len(images):
        raise UserError(f"a closed form needs images (N, C, H, W), at least one; got {tuple(images.shape)}")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{len(labels)} labels for {len(images)} images; give one label an image")
    return data, images, labels
