r"""Jacobians of denoisers: their singular values and rank, and how alike they are in two models.

They are taken by batched vector-Jacobian products: the image is repeated over a batch and each copy is differentiated
along its own direction, so one ordinary backward pass gives as many rows as the batch holds, of any network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from repro.analysis.score_error import seen_under
from repro.denoisers import Denoiser
from repro.errors import UserError, check_at_least, unknown
from repro.noise import NoiseStream, draw_noise
from repro.samplers.base import Sampler

__all__ = ["Spectrum", "gradient_similarity", "jacobian", "numerical_rank", "spectra_along", "spectrum"]

Output = Literal["x_0", "eps"]


def jacobian(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    output: Output = "x_0",
    chunk: int = 256,
) -> Tensor:
    r"""Computes the Jacobian of the denoised image, or of the predicted noise, in the noisy image.

    Args:
        denoiser: Any denoiser whose answer for an image does not depend on its batch mates.
        x_t: Noisy images, (B, C, H, W), d = C H W values each.
        t: Times, () or (B,).
        labels: Classes (B,), or None.
        output: ``x_0`` or ``eps``.
        chunk: Rows of a Jacobian that are computed at a time, the batch of the passes.

    Returns:
        (B, d, d) in the dtype of ``x_t``: row i is the gradient of output value i.

    Raises:
        UserError: another output, or a chunk below 1.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import EDM
        >>> x_t, t = torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.tensor(0.5)
        >>> jacobian(GaussianDenoiser(EDM(), (1, 2, 2)), x_t, t)[0].diagonal().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    check_at_least(1, chunk=chunk)
    directions = torch.eye(x_t[0].numel(), dtype=x_t.dtype, device=x_t.device).view(-1, *x_t.shape[1:])
    return torch.stack(
        [
            torch.cat(
                [
                    _pull_back(denoiser, x_t[i], _item(t, i), _item(labels, i), part, output).flatten(1)
                    for part in directions.split(chunk)
                ]
            )
            for i in range(len(x_t))
        ]
    )


def _item(values: Tensor | None, i: int) -> Tensor | None:
    return values if values is None or values.ndim == 0 else values[i]


def _pull_back(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, label: Tensor | None, directions: Tensor, output: Output
) -> Tensor:
    """Rows v^T J of one image for many directions v, (k, C, H, W)."""
    if output not in ("x_0", "eps"):
        raise unknown("output", output, ("x_0", "eps"))
    count = len(directions)
    with torch.inference_mode(False), torch.enable_grad():
        copies = x_t.detach().clone().expand(count, *x_t.shape).contiguous().requires_grad_()
        function = denoiser.denoise if output == "x_0" else denoiser.eps
        answer = function(copies, t, None if label is None else label.expand(count))
        return torch.autograd.grad(answer, copies, directions)[0]


def numerical_rank(singular_values: Tensor, part: float = 0.99) -> Tensor:
    r"""Computes the smallest r whose leading singular values hold more than a part of the root of their energy.

    .. math:: \sqrt{\textstyle\sum_{i \le r} s_i^2} > p \sqrt{\textstyle\sum_i s_i^2}

    The threshold acts on the square root of the energy, as in the companion code of the paper: p = 0.99 asks for 98.01
    per cent of the energy.

    Args:
        singular_values: Falling, (..., d).
        part: p, between 0 and 1.

    Returns:
        int64 (...), from 1 to d; 0 where all singular values are 0.

    Example:
        >>> numerical_rank(torch.tensor([1.0, 1.0, 0.1, 0.0])).item()
        2
    """
    if not 0 < part < 1:
        raise UserError(f"part is {part:g}; give a number between 0 and 1, 0.99 by default")
    energy = singular_values.square().cumsum(-1)
    reached = energy.sqrt() > part * energy[..., -1:].sqrt()
    return torch.where(energy[..., -1] > 0, (~reached).sum(-1) + 1, 0)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of Jacobians at one time.

    Attributes:
        t: The time, shape ().
        ratio: Noise level there, in units of unscaled images.
        singular_values: Falling, (B, d).
        rank: Numerical rank, int64 (B,).
        trace: Trace of the Jacobian, (B,).
        frobenius: Its Frobenius norm, (B,).
    """

    t: Tensor
    ratio: float
    singular_values: Tensor
    rank: Tensor
    trace: Tensor
    frobenius: Tensor


def spectrum(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, labels: Tensor | None = None, part: float = 0.99, chunk: int = 256
) -> Spectrum:
    """Computes singular values and rank of the Jacobian of the denoised images at one time.

    Args:
        denoiser: Any denoiser.
        x_t: Noisy images, (B, C, H, W).
        t: The time, shape ().
        labels: Classes (B,), or None.
        part: Of :func:`numerical_rank`.
        chunk: Of :func:`jacobian`.
    """
    matrix = jacobian(denoiser, x_t, t, labels, "x_0", chunk)
    values = torch.linalg.svdvals(matrix)
    return Spectrum(
        t=t,
        ratio=denoiser.kernel.ratio(t.double()).item(),
        singular_values=values,
        rank=numerical_rank(values, part),
        trace=matrix.diagonal(dim1=1, dim2=2).sum(1),
        frobenius=torch.linalg.matrix_norm(matrix),
    )


def spectra_along(
    denoiser: Denoiser,
    sampler: Sampler,
    noise: NoiseStream | Tensor,
    labels: Tensor | None = None,
    part: float = 0.99,
    chunk: int = 256,
) -> Iterator[Spectrum]:
    """Computes spectra at every point of the sampler's way from noise to image, from high noise to low.

    Args:
        denoiser: Any denoiser.
        sampler: Any sampler.
        noise: Starting noises, as the sampler takes them.
        labels: Classes, or None.
        part: Of :func:`numerical_rank`.
        chunk: Of :func:`jacobian`.
    """
    for step in sampler.trajectory(denoiser, noise, labels):
        yield spectrum(denoiser, step.x_t, step.t, labels, part, chunk)


def gradient_similarity(
    first: Denoiser,
    second: Denoiser,
    x_t: Tensor,
    t: Tensor,
    probes: Sequence[int] = range(16),
    labels: Tensor | None = None,
    output: Output = "eps",
) -> Tensor:
    r"""Computes the cosine of the products :math:`J^T v` of two denoisers with common numbered directions v.

    Posterior sampling moves along such products, so two models sample alike only where these agree (paper, appendix F).
    Independent directions would give cosines around :math:`\pm d^{-1/2}`.

    Args:
        first: A denoiser; its kernel says what ``x_t`` and ``t`` mean.
        second: Another one, looked at through the first one's kernel.
        x_t: Noisy images, (B, C, H, W).
        t: Times, () or (B,).
        probes: Numbers of the unit normal directions.
        labels: Classes (B,), or None.
        output: Of which the Jacobian is taken, ``eps`` or ``x_0``.

    Returns:
        (B, probes), from -1 to 1; 0 where a product vanishes.

    Raises:
        UserError: denoisers of images of different shapes, or another output.
    """
    if first.image_shape != second.image_shape:
        raise UserError(f"the denoisers' images are {first.image_shape} and {second.image_shape}; compare one shape")
    directions = draw_noise(probes, x_t.shape[1:]).to(x_t)
    rows = []
    for i in range(len(x_t)):
        products = [
            _pull_back(seen_under(each, first.kernel), x_t[i], _item(t, i), _item(labels, i), directions, output)
            for each in (first, second)
        ]
        rows.append(torch.cosine_similarity(*(product.flatten(1) for product in products), dim=1))
    return torch.stack(rows)
