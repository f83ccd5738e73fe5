"""Likelihood of images under a model: the instantaneous change of variables along its probability flow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.errors import UserError, check_choice
from repro.noise import NoiseStream

__all__ = ["Likelihood", "Trace", "bits_per_dimension", "log_density"]

Trace = Literal["exact", "hutchinson"]
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Likelihood(NamedTuple):
    """Bits per dimension of images.

    Attributes:
        bits: Of each image, float64 (n,).
        error: Standard error of each that the random trace leaves, (n,); 0 for exact traces.
    """

    bits: Tensor
    error: Tensor


def log_density(
    denoiser: Denoiser,
    x: Tensor,
    labels: Tensor | None = None,
    steps: int = 128,
    trace: Trace = "hutchinson",
    probes: Tensor | None = None,
) -> Tensor:
    r"""Computes the log density of points under the probability flow of a denoiser, in nats, float64.

    With :math:`y = x_t / \alpha_t` and the noise level :math:`r = \sigma_t / \alpha_t`, both integrated over
    :math:`\log r` by the classical Runge-Kutta method of order 4:

    .. math:: \frac{dy}{d \log r} = y - \hat x_0, \qquad \frac{d \log p(y)}{d \log r}
              = -d + \alpha_t \,\mathrm{tr} \frac{\partial \hat x_0}{\partial x_t}

    Args:
        denoiser: A posterior mean.
        x: Points, floats (n, C, H, W), taken for :math:`y` at the kernel's smallest time.
        labels: Class numbers (n,), or None.
        steps: Steps from the smallest noise level to the largest.
        trace: ``exact``, a derivative a pixel, or ``hutchinson``, :math:`v^T J v` for random signs v.
        probes: The signs, (m, n, C, H, W), for ``hutchinson``.

    Returns:
        Shape (n,), or (m, n) with ``probes``.

    Source: Song et al. 2021, arXiv:2011.13456, appendix D.2; Grathwohl et al. 2019, arXiv:1810.01367.
    """
    kernel = denoiser.kernel
    ends = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64)).log()
    h = (ends[1] - ends[0]) / steps
    y, pixels = x.double(), x[0].numel()
    total = torch.zeros(x.shape[:1] if probes is None else probes.shape[:2], dtype=torch.float64, device=x.device)

    def slopes(y: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        t = kernel.time_of_ratio(log_ratio.exp())
        alpha = kernel.alpha(t)
        with torch.enable_grad():
            x_t = (alpha * y).detach().requires_grad_()
            x_0 = denoiser.denoise(x_t, t, labels)
            traces = _exact_trace(x_0, x_t) if trace == "exact" else _probed_traces(x_0, x_t, probes)
        return y - x_0.detach(), -pixels + alpha * traces

    for number in range(steps):
        at = ends[0] + number * h
        first, p_first = slopes(y, at)
        second, p_second = slopes(y + h / 2 * first, at + h / 2)
        third, p_third = slopes(y + h / 2 * second, at + h / 2)
        fourth, p_fourth = slopes(y + h * third, at + h)
        y = y + h / 6 * (first + 2 * second + 2 * third + fourth)
        total = total + h / 6 * (p_first + 2 * p_second + 2 * p_third + p_fourth)
    last = torch.tensor(kernel.t_max, dtype=torch.float64)
    alpha, scale = kernel.alpha(last), kernel.prior_scale
    prior = -((alpha * y / scale).square() / 2 + _HALF_LOG_2_PI + math.log(scale)).flatten(1).sum(1)
    # The changes add up from the data to the noise, so the density at the data is the noise's less their sum.
    return prior + pixels * alpha.log() - total


def _exact_trace(x_0: Tensor, x_t: Tensor) -> Tensor:
    flat, total = x_0.flatten(1), torch.zeros(len(x_0), dtype=x_0.dtype, device=x_0.device)
    for pixel in range(flat.shape[1]):
        gradient = torch.autograd.grad(flat[:, pixel].sum(), x_t, retain_graph=True)[0]
        total = total + gradient.flatten(1)[:, pixel]
    return total


def _probed_traces(x_0: Tensor, x_t: Tensor, probes: Tensor | None) -> Tensor:
    if probes is None:
        raise UserError("the trace 'hutchinson' needs probes; give random signs (m, n, C, H, W), or take trace='exact'")
    products = [torch.autograd.grad(x_0, x_t, probe, retain_graph=True)[0] * probe for probe in probes.to(x_0)]
    return torch.stack([product.flatten(1).sum(1) for product in products])


def bits_per_dimension(
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor | None = None,
    seeds: Iterable[int] | None = None,
    steps: int = 128,
    trace: Trace = "hutchinson",
    probes: int = 4,
) -> Likelihood:
    r"""Computes bits per dimension of byte images under a denoiser; lower is more likely.

    Bytes are dequantised by uniform noise, :math:`x = (k + u - 1/2) / 127.5 - 1`, so that the mean is an upper bound of
    the negative log likelihood of the bytes:

    .. math:: -\frac{\log p(x)}{d \log 2} + \log_2 127.5

    Args:
        denoiser: A posterior mean, of float images in [-1, 1].
        images: uint8 (n, C, H, W).
        labels: Class numbers, int64 (n,), or None.
        seeds: Numbers of the dequantising noise and of the signs, one an image; 0, 1, 2, ... by default.
        steps: Steps from the smallest noise level to the largest.
        trace: ``exact`` or ``hutchinson``; exact costs a derivative a pixel.
        probes: Random signs an image, for ``hutchinson``.

    Raises:
        UserError: images of another shape or type, an unknown trace, fewer than one step or two probes.

    Source: Theis et al. 2016, arXiv:1511.01844, section 3.1; Song et al. 2021, arXiv:2011.13456, appendix D.2.

    Example:
        >>> from repro.denoisers import GaussianDenoiser
        >>> from repro.kernels import EDM
        >>> images = torch.full((1, 1, 2, 2), 128, dtype=torch.uint8)
        >>> round(bits_per_dimension(GaussianDenoiser(EDM(), (1, 2, 2)), images, trace="exact").bits.item(), 1)
        7.3
    """
    check_choice("trace", trace, Trace)
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != denoiser.image_shape:
        raise UserError(
            f"images are {images.dtype} {tuple(images.shape[1:])}; bits per dimension need uint8 images of the model's "
            f"shape {denoiser.image_shape}"
        )
    if steps < 1 or probes < 2:
        raise UserError(f"steps is {steps} and probes {probes}; give at least 1 step and 2 probes")
    stream = NoiseStream(range(len(images)) if seeds is None else seeds)
    normal = stream.draw(images.shape[1:]).double()
    uniform = torch.special.ndtr(normal).to(images.device)
    x = (images.double() + uniform - 0.5) / 127.5 - 1
    signs = None
    if trace == "hutchinson":
        signs = torch.stack([stream.draw(images.shape[1:]).sign() for _ in range(probes)]).to(images.device)
    density = log_density(denoiser, x, labels, steps, trace, signs)
    bits = -density / (images[0].numel() * math.log(2)) + math.log2(127.5)
    if signs is None:
        return Likelihood(bits, torch.zeros_like(bits))
    return Likelihood(bits.mean(0), bits.std(0) / math.sqrt(probes))
