"""Classifier-free guidance: a conditional denoiser pushed away from its own answer without a label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser
from repro.errors import UserError

__all__ = ["GuidedDenoiser", "check_guidance"]


def check_guidance(scale: float) -> float:
    """Returns the scale of guidance as a float, refusing one that is negative or not finite.

    Raises:
        UserError: a negative number, or none at all.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"guidance is {scale:g}; give a number of at least 0, such as 1.5 (1 is no guidance)")
    return float(scale)


class GuidedDenoiser(Denoiser):
    r"""A denoiser under classifier-free guidance: two calls of the denoiser, with the label and without.

    .. math:: \hat x_0 = \hat x_0(x_t) + w \, \big(\hat x_0(x_t \mid c) - \hat x_0(x_t)\big)

    A scale w of 1 is the conditional denoiser, 0 the unconditional one, and w above 1 guides. (Ho and Salimans write
    :math:`w - 1` for the same scale.) Noise, score and velocity are affine in the clean image, so guiding any of them
    is the same. For w other than 0 and 1 the answer is no posterior mean of any distribution under the kernel. Without
    labels it is the denoiser itself. A denoiser with ``guided_channels`` is guided in these alone; the others are those
    of the answer with the label, as in the sampler of DiT.

    Args:
        denoiser: A conditional denoiser that also answers without labels.
        scale: The scale w, at least 0.

    Raises:
        UserError: a negative scale, or a denoiser without classes.

    Source: Ho and Salimans 2022, arXiv:2207.12598, equation 6.

    Example:
        >>> from repro.denoisers import EmpiricalDenoiser
        >>> from repro.kernels import EDM
        >>> images = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1)
        >>> best = EmpiricalDenoiser(images, EDM(), labels=torch.tensor([0, 1]))
        >>> x_t, t = torch.zeros(1, 1, 1, 1), torch.tensor(1.0)
        >>> [GuidedDenoiser(best, w).denoise(x_t, t, torch.tensor([1])).item() for w in (0, 1, 2)]
        [0.0, 0.5, 1.0]
    """

    def __init__(self, denoiser: Denoiser, scale: float) -> None:
        super().__init__()
        self.denoiser, self.scale = denoiser, check_guidance(scale)
        if not denoiser.num_classes:
            raise UserError("guidance needs a conditional denoiser; this one has no classes")
        self.kernel, self.image_shape, self.num_classes = denoiser.kernel, denoiser.image_shape, denoiser.num_classes

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        plain = self.denoiser.denoise(x_t, t)
        if labels is None:
            return plain
        labelled = self.denoiser.denoise(x_t, t, labels)
        guided = torch.lerp(plain, labelled, self.scale)
        if (count := self.denoiser.guided_channels) is None:
            return guided
        return torch.cat([guided[:, :count], labelled[:, count:]], dim=1)
